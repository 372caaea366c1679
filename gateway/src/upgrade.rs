//! Connections that become a WebSocket.
//!
//! The handshake is a call like any other. When the function answers it with 101, bytes pass both
//! ways until one side ends or the call does: what the caller sends is the rest of the request's
//! body, what the function sends the body of its answer. The protocol itself is the function's
//! affair, with one exception: a caller whose connection ends for a reason of the platform's (the
//! deadline, a fault, a shutdown) is told so by a Close frame.
//!
//! Only WebSocket upgrades over HTTP/1.1 pass. Any other `upgrade` is left out of the request, as
//! HTTP allows.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, Invoker, Piece, RequestHead};
use cloudserve_protocol::fault::{Fault, FaultClass};
use futures::{TryStreamExt, stream};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::answer::{AnswerBody, answer, failure};
use crate::dispatch::in_time;
use crate::frames::{Frames, close_frame};
use crate::head::connection_tokens;
use crate::meter::Call;
use crate::options::GatewayOptions;
use crate::patience::Patience;
use crate::serve::Seat;

/// What is read of the caller at once.
const READ_BYTES: usize = 16 * 1024;

/// The buffer is used up to this rest before the next one is made.
const MIN_READ_BYTES: usize = 2 * 1024;

/// How long a connection that is over stays open for the caller to read what was sent last: one
/// that is closed while its peer still sends is reset.
const LINGER: Duration = Duration::from_secs(1);

/// WebSocket's "going away".
const GOING_AWAY: u16 = 1001;
/// WebSocket's "message too big".
const TOO_BIG: u16 = 1009;
/// WebSocket's "internal error".
const INTERNAL_ERROR: u16 = 1011;

/// A request to become a WebSocket.
pub(crate) struct Upgrade {
    connection: OnUpgrade,
    seat: Option<Arc<Seat>>,
    closing: CancellationToken,
}

impl Upgrade {
    /// What the request asks for, if it can have it. `closing` says that the gateway shuts down.
    pub(crate) fn requested<B: HttpBody>(
        request: &mut Request<B>,
        closing: &CancellationToken,
    ) -> Option<Self> {
        let headers = request.headers();
        let protocol = headers.get(UPGRADE)?;
        let is_websocket = request.version() == Version::HTTP_11
            && request.method() == Method::GET
            && request.body().is_end_stream()
            && protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
            && headers.contains_key(SEC_WEBSOCKET_KEY)
            && connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
        if !is_websocket {
            return None;
        }
        let extensions = request.extensions_mut();
        let connection = extensions.remove::<OnUpgrade>()?;
        Some(Self { connection, seat: extensions.remove(), closing: closing.clone() })
    }

    /// Makes the call and answers it.
    pub(crate) async fn serve(
        self,
        invoker: &dyn Invoker,
        options: &GatewayOptions,
        mut call: Box<Call>,
        patience: &Patience,
        head: RequestHead,
    ) -> Response<AnswerBody> {
        // One piece under way, beside those the sandbox has taken.
        let (heard, mut pieces) = mpsc::channel(1);
        let pieces = stream::poll_fn(move |cx| pieces.poll_recv(cx)).map_ok(Piece::Data);
        let told = call.told();
        let invocation = call.invocation(head, Body::Stream(Box::pin(pieces)), told);
        let reply = invoker.invoke(invocation);
        match in_time(options, &call, patience, reply).await {
            Ok(reply) if reply.head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() => {
                let until = call.deadline() + options.deadline_grace();
                let left_bytes = call.target().limits.upload_bytes(true);
                let patience = options.hang_up_wait();
                let (mut parts, said) = answer(call, reply, false).into_parts();
                parts.status = StatusCode::SWITCHING_PROTOCOLS;
                parts.headers.remove(CONTENT_LENGTH);
                parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                let tunnel = Tunnel { said, heard: Some(heard), left_bytes, patience };
                tokio::spawn(tunnel.open(self, until));
                Response::from_parts(parts, AnswerBody::whole(Bytes::new()))
            }
            // The end of `heard` is the end of the request's body.
            Ok(reply) => answer(call, reply, false),
            Err(outcome) => failure(call, *outcome),
        }
    }
}

/// Both directions of one connection.
struct Tunnel {
    /// What the function says. Dropping it early tells the sandbox that the caller has gone.
    said: AnswerBody,
    /// Where what the caller says goes; `None` when it has said all, or nobody listens.
    heard: Option<mpsc::Sender<Result<Bytes, Fault>>>,
    /// What the caller may still send.
    left_bytes: u64,
    /// How long the function may take to end when its caller has.
    patience: Duration,
}

/// What happened next.
enum Step {
    Heard(io::Result<usize>),
    NobodyListens,
    Written(io::Result<usize>),
    Said(Option<Result<Bytes, Fault>>),
    Overstayed,
    ShuttingDown,
}

/// How a tunnel ended.
enum End {
    /// The function said all it had to say.
    Complete,
    /// The platform ends the connection, with this code and reason.
    Dismissed(u16, &'static str),
    /// There is nobody to say anything to.
    HungUp,
}

impl Tunnel {
    /// Passes bytes until the end, which is `until` or a linger later at the latest.
    async fn open(self, upgrade: Upgrade, until: Instant) {
        let Upgrade { connection, seat, closing } = upgrade;
        let open = async {
            // An error says that the caller has gone before it could be answered.
            let Ok(connection) = connection.await else { return };
            let (mut reading, mut writing) = tokio::io::split(TokioIo::new(connection));
            self.pass(&mut reading, &mut writing, &closing).await;
            // Whoever is gone is not waited for.
            let _ = tokio::time::timeout(LINGER, async {
                let _ = writing.shutdown().await;
                let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
            })
            .await;
        };
        // A caller that reads nothing would hold the goodbye back for good.
        let _ = tokio::time::timeout_at((until + LINGER).into(), open).await;
        drop(seat);
    }

    async fn pass(
        self,
        reading: &mut (impl tokio::io::AsyncRead + Unpin),
        writing: &mut (impl AsyncWrite + Unpin),
        closing: &CancellationToken,
    ) {
        let Self { mut said, mut heard, mut left_bytes, patience } = self;
        let mut frames = Frames::default();
        let mut incoming = BytesMut::new();
        let mut outgoing = Bytes::new();
        let mut overstayed = pin!(tokio::time::sleep(Duration::MAX));
        let mut has_left = false;
        let end = loop {
            let hear = async {
                let Some(heard) = &heard else { return std::future::pending().await };
                // Reading waits for a place: what nobody takes stays with the caller.
                if heard.reserve().await.is_err() {
                    return Step::NobodyListens;
                }
                if incoming.capacity() - incoming.len() < MIN_READ_BYTES {
                    incoming.reserve(READ_BYTES);
                }
                Step::Heard(reading.read_buf(&mut incoming).await)
            };
            let say = async {
                if !outgoing.is_empty() {
                    return Step::Written(writing.write_buf(&mut outgoing).await);
                }
                Step::Said(
                    said.frame()
                        .await
                        .map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())),
                )
            };
            let step = tokio::select! {
                step = say => step,
                step = hear => step,
                () = &mut overstayed, if has_left => Step::Overstayed,
                () = closing.cancelled() => Step::ShuttingDown,
            };
            match step {
                Step::Said(None) => break End::Complete,
                Step::Said(Some(Ok(bytes))) => {
                    frames.pass(&bytes);
                    outgoing = bytes;
                }
                Step::Said(Some(Err(fault))) => {
                    break End::Dismissed(close_code(fault.class), fault.class.code());
                }
                Step::Heard(Ok(1..)) => {
                    let piece = within(incoming.split().freeze(), &mut left_bytes);
                    let is_last = piece.is_err();
                    // There is a place for it, unless nobody listens any more.
                    let passed = heard.as_ref().is_some_and(|heard| heard.try_send(piece).is_ok());
                    if is_last || !passed {
                        heard = None;
                    }
                }
                Step::Heard(Ok(0)) => {
                    heard = None;
                    has_left = true;
                    overstayed.as_mut().reset((Instant::now() + patience).into());
                }
                Step::NobodyListens => heard = None,
                Step::Written(Ok(1..)) => {}
                Step::Heard(Err(_)) | Step::Written(_) | Step::Overstayed => break End::HungUp,
                Step::ShuttingDown => break End::Dismissed(GOING_AWAY, "shutting_down"),
            }
        };
        // The call is over from here on, whatever becomes of the last bytes.
        drop((said, heard));
        let goodbye = match end {
            End::HungUp => return,
            End::Dismissed(code, reason) if frames.may_close() => close_frame(code, reason),
            End::Complete | End::Dismissed(..) => Vec::new(),
        };
        for bytes in [&outgoing[..], &goodbye] {
            if writing.write_all(bytes).await.is_err() {
                return;
            }
        }
    }
}

/// What the caller has sent, if it may still send as much.
fn within(bytes: Bytes, left_bytes: &mut u64) -> Result<Bytes, Fault> {
    let left = left_bytes.checked_sub(bytes.len() as u64).ok_or_else(|| {
        Fault::new(
            FaultClass::PayloadTooLarge,
            "the caller sent more over its WebSocket than the function takes \
             (limits.streamedResponseBytes raises it)",
        )
    })?;
    *left_bytes = left;
    Ok(bytes)
}

/// What a fault is to a WebSocket.
fn close_code(class: FaultClass) -> u16 {
    match class {
        FaultClass::Timeout => GOING_AWAY,
        FaultClass::PayloadTooLarge | FaultClass::ResponseTooLarge => TOO_BIG,
        _ => INTERNAL_ERROR,
    }
}
