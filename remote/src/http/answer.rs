//! The answer to one call, while the call runs; and to whatever else takes long.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cloudserve_protocol::call::{Body, Invocation, Invoker, Outcome, Piece, Reply};
use cloudserve_protocol::fault::{Fault, FaultClass};
use futures::{Stream, StreamExt};
use tokio::sync::oneshot::error::{RecvError, TryRecvError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::frame;

/// Pieces that wait for the connection.
const PIECES: usize = 4;

/// Bodies up to this are copied into one piece with what surrounds them: one write.
const COPIED_BYTES: usize = 64 * 1024;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a call, or other work, and is the body of the HTTP answer. Whoever drops it gives the work up.
pub(super) struct Answer {
    stage: Stage,
    pieces: mpsc::Receiver<Bytes>,
}

enum Stage {
    /// Waits once: the connection sends what it has when its body has nothing for it. So the head
    /// of the answer, which says that the work is taken, is out before the work begins.
    Announce(Work),
    Run(Work),
    Over,
}

impl Answer {
    pub(super) fn new<F>(work: impl FnOnce(mpsc::Sender<Bytes>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (out, pieces) = mpsc::channel(PIECES);
        Self { stage: Stage::Announce(Box::pin(work(out))), pieces }
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match std::mem::replace(&mut this.stage, Stage::Over) {
            Stage::Announce(work) => {
                this.stage = Stage::Run(work);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Stage::Run(mut work) => {
                if work.as_mut().poll(cx).is_pending() {
                    this.stage = Stage::Run(work);
                }
            }
            Stage::Over => {}
        }
        Poll::Ready(ready!(this.pieces.poll_recv(cx)).map(Ok))
    }
}

/// Makes a call and says how it goes. `outcome`: what the call tells. `gone`: nobody reads the answer
/// any more.
pub(super) async fn run(
    invoker: &dyn Invoker,
    call: Invocation,
    mut outcome: oneshot::Receiver<Outcome>,
    gone: &CancellationToken,
    out: mpsc::Sender<Bytes>,
) {
    let mut buffer = BytesMut::new();
    let reply = tokio::select! {
        reply = invoker.invoke(call) => Some(reply),
        () = gone.cancelled() => None,
    };
    let reply = match reply {
        Some(reply) => reply,
        None => Err(Box::new(given_up((&mut outcome).await))),
    };
    let Reply { head, body, cold, timings } = match reply {
        Ok(reply) => reply,
        Err(outcome) => {
            frame::push_failed(&mut buffer, &outcome);
            send(&out, buffer).await;
            return;
        }
    };
    frame::push_head(&mut buffer, &head, cold, timings);
    match body {
        Body::Empty => frame::push_end(&mut buffer),
        Body::Full(bytes) => {
            push_data(&out, &mut buffer, bytes).await;
            frame::push_end(&mut buffer);
        }
        Body::Stream(mut pieces) => loop {
            send(&out, std::mem::take(&mut buffer)).await;
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = gone.cancelled() => break,
            };
            match piece {
                Some(Ok(Piece::Data(bytes))) => push_data(&out, &mut buffer, bytes).await,
                Some(Ok(Piece::Trailers(trailers))) => {
                    frame::push_trailers(&mut buffer, &trailers);
                    break;
                }
                Some(Err(fault)) => {
                    frame::push_broken(&mut buffer, &fault);
                    break;
                }
                None => {
                    frame::push_end(&mut buffer);
                    break;
                }
            }
        },
    }
    let over = match outcome.try_recv() {
        Ok(over) => Some(over),
        Err(TryRecvError::Closed) => None,
        Err(TryRecvError::Empty) => {
            send(&out, std::mem::take(&mut buffer)).await;
            outcome.await.ok()
        }
    };
    if let Some(over) = over {
        frame::push_outcome(&mut buffer, &over);
    }
    send(&out, buffer).await;
}

/// How a call has ended that nobody waits for; it may not even have begun.
fn given_up(told: Result<Outcome, RecvError>) -> Outcome {
    let fault = || Fault::new(FaultClass::Cancelled, "the caller went away before the answer");
    told.unwrap_or_else(|_| Outcome::not_started(fault()))
}

async fn push_data(out: &mpsc::Sender<Bytes>, buffer: &mut BytesMut, bytes: Bytes) {
    frame::push_data_prefix(buffer, bytes.len());
    if bytes.len() <= COPIED_BYTES {
        buffer.extend_from_slice(&bytes);
    } else {
        send(out, std::mem::take(buffer)).await;
        // Fails when the connection is gone, and then this is dropped at once.
        let _ = out.send(bytes).await;
    }
}

async fn send(out: &mpsc::Sender<Bytes>, buffer: BytesMut) {
    if !buffer.is_empty() {
        let _ = out.send(buffer.freeze()).await;
    }
}
