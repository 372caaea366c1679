//! Request bodies: small ones whole, others piece by piece, none over its limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, Piece};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use futures::Stream;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::options::GatewayOptions;
use crate::trailers::Announced;

/// A request body as it comes from the connection.
pub(crate) trait Incoming:
    HttpBody<Data = Bytes, Error: std::error::Error> + Send + Unpin + 'static
{
}

impl<B> Incoming for B where
    B: HttpBody<Data = Bytes, Error: std::error::Error> + Send + Unpin + 'static
{
}

/// A body that may be handed to a sandbox.
pub(crate) struct Received {
    pub(crate) body: Body,
    /// Resolves if a body that is still under way outgrows its limit.
    pub(crate) overflow: Option<oneshot::Receiver<()>>,
}

/// How much of a body nobody wants is still read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leftover {
    bytes: u64,
    time: Duration,
    /// The caller sends its body only when it is asked to, and reading is asking.
    waits_to_be_asked: bool,
}

impl Leftover {
    pub(crate) fn of(options: &GatewayOptions, headers: &HeaderMap, body: &impl Incoming) -> Self {
        Self {
            bytes: options.refused_body_bytes,
            time: Duration::from_millis(options.refused_body_ms.into()),
            waits_to_be_asked: !body.is_end_stream() && headers.contains_key(EXPECT),
        }
    }

    /// Whether the connection can be used again after this body was refused unread.
    pub(crate) fn ends_connection(self, body: &impl Incoming) -> bool {
        !body.is_end_stream()
            && (self.waits_to_be_asked
                || body.size_hint().exact().is_none_or(|length| length > self.bytes))
    }

    /// [`Self::discard`] for a body of which nothing was read.
    pub(crate) fn discard_unread(self, body: impl Incoming) {
        if !body.is_end_stream() && !self.waits_to_be_asked {
            self.discard(body);
        }
    }

    /// Reads on for a while, away from the answer. A connection that is closed while its peer
    /// still sends is reset, and the peer may never see the answer.
    fn discard(self, mut body: impl Incoming) {
        // Without a runtime there is no connection left, either.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let reading = async {
                let mut left = self.bytes;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    match left.checked_sub(length) {
                        Some(rest) => left = rest,
                        None => break,
                    }
                }
            };
            let _ = tokio::time::timeout(self.time, reading).await;
        });
    }
}

/// Takes the body of at most `max_bytes` that belongs to these headers. It is not at its end.
pub(crate) async fn receive<B: Incoming>(
    body: B,
    headers: &HeaderBlock,
    max_bytes: u64,
    whole_bytes: u64,
    leftover: Leftover,
) -> Result<Received, Fault> {
    match body.size_hint().exact() {
        Some(length) if length > max_bytes => {
            leftover.discard_unread(body);
            Err(Fault::payload_too_large(max_bytes))
        }
        // One that waits to be asked is asked for by whoever wants it.
        Some(length) if length <= whole_bytes && !leftover.waits_to_be_asked => {
            let whole = read_whole(body, length).await?;
            Ok(Received { body: Body::Full(whole), overflow: None })
        }
        _ => {
            let (overflow, overflowed) = oneshot::channel();
            let pieces = Pieces {
                body: Some(body),
                announced: Announced::in_head(headers),
                is_asked_for: false,
                left: max_bytes,
                max_bytes,
                overflow: Some(overflow),
                leftover,
            };
            Ok(Received { body: Body::Stream(Box::pin(pieces)), overflow: Some(overflowed) })
        }
    }
}

async fn read_whole<B: Incoming>(mut body: B, length: u64) -> Result<Bytes, Fault> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Fault::request_cut_off())?.into_data() else { continue };
        // The usual case: it all came in one read, and is not copied.
        if whole.is_empty() && piece.len() as u64 == length {
            return Ok(piece);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The caller has not sent what it announced.
pub(crate) fn late() -> Fault {
    Fault::new(
        FaultClass::Cancelled,
        "the request's body did not arrive within the function's timeout",
    )
}

/// A body under way, counted. What the function leaves unread is read and thrown away, as a
/// refused body is.
struct Pieces<B: Incoming> {
    /// `None` after its end.
    body: Option<B>,
    /// The trailers that may come.
    announced: Option<Announced>,
    is_asked_for: bool,
    left: u64,
    max_bytes: u64,
    overflow: Option<oneshot::Sender<()>>,
    leftover: Leftover,
}

impl<B: Incoming> Stream for Pieces<B> {
    type Item = Result<Piece, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            this.is_asked_for = true;
            let piece = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => piece,
                    Err(frame) => {
                        let trailers = frame.trailers_ref().zip(this.announced.as_ref());
                        let Some(passed) = trailers.and_then(|(t, announced)| announced.select(t))
                        else {
                            continue;
                        };
                        this.body = None;
                        return Poll::Ready(Some(Ok(Piece::Trailers(passed))));
                    }
                },
                Some(Err(_)) => {
                    this.body = None;
                    return Poll::Ready(Some(Err(Fault::request_cut_off())));
                }
                None => {
                    this.body = None;
                    return Poll::Ready(None);
                }
            };
            let Some(left) = this.left.checked_sub(piece.len() as u64) else {
                if let Some(body) = this.body.take() {
                    this.leftover.discard(body);
                }
                if let Some(overflow) = this.overflow.take() {
                    // An error says that the call is over already.
                    let _ = overflow.send(());
                }
                return Poll::Ready(Some(Err(Fault::payload_too_large(this.max_bytes))));
            };
            this.left = left;
            return Poll::Ready(Some(Ok(piece.into())));
        }
    }
}

impl<B: Incoming> Drop for Pieces<B> {
    fn drop(&mut self) {
        match self.body.take() {
            Some(body) if self.is_asked_for => self.leftover.discard(body),
            Some(body) => self.leftover.discard_unread(body),
            None => {}
        }
    }
}
