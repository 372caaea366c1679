//! What a node answers to a call becomes a [`Reply`].
//!
//! An answer that comes whole, which is nearly every one, needs no task. Otherwise whoever reads
//! the body drives the connection, and when the body ends, however it ends, a task waits for the
//! outcome, for a bounded time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use cloudserve_protocol::call::{Body, Outcome, Piece, Reply};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::ExecutionId;
use futures::Stream;
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Shared;
use super::upload::Source;
use crate::frame::{Event, FrameError, FrameReader, append, unexpected};
use crate::metrics::Counters;
use crate::nodes::{Node, Occupied};
use crate::options::millis;

type Reader = FrameReader<BodyDataStream<Incoming>>;

/// `waitUntil` may go on for as long as a call may take: 15 minutes, and some to spare.
const LONGEST_AFTERMATH: Duration = Duration::from_secs(16 * 60);

/// As much of an answer is gathered before it is passed on, if there is more.
const GATHERED_BYTES: usize = 256 * 1024;

/// A call that a node has taken.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
    pub(super) id: ExecutionId,
    pub(super) source: Source,
    /// Who is told how it has ended.
    pub(super) told: oneshot::Sender<Outcome>,
    /// The node has it for as long as this is held.
    pub(super) _occupied: Occupied,
}

impl Call {
    /// Waits until the answer begins, and takes what there is of it. The error: there is none.
    pub(super) async fn answer(self, body: Incoming) -> Result<Reply, (Box<Outcome>, Self)> {
        let reader = FrameReader::new(BodyDataStream::new(body));
        let mut waiting = Waiting(Some(UnderWay { reader, call: self }));
        let event = waiting.next().await;
        let mut under_way = waiting.over();
        let (head, cold, timings) = match event {
            Ok(Some(Event::Head { head, cold, timings })) => (head, cold, timings),
            Ok(Some(Event::Failed(outcome))) => return Err((outcome, under_way.call)),
            other => {
                let outcome = under_way.call.lost(unexpected(&other));
                return Err((Box::new(outcome), under_way.call));
            }
        };
        let mut gathered = Bytes::new();
        let mut cx = Context::from_waker(Waker::noop());
        let body = loop {
            // The connection may bring more for as long as it is asked.
            let polled = if gathered.len() < GATHERED_BYTES {
                under_way.reader.poll_next(&mut cx)
            } else {
                Poll::Pending
            };
            let Poll::Ready(event) = polled else {
                let answer = Answer { first: gathered, under_way: Some(under_way) };
                break Body::Stream(Box::pin(answer));
            };
            let fault = match event {
                Ok(Some(Event::Data(bytes))) => {
                    append(&mut gathered, bytes);
                    continue;
                }
                Ok(Some(Event::End)) => {
                    under_way.body_ended();
                    break gathered.into();
                }
                Ok(Some(Event::Trailers(trailers))) => {
                    under_way.body_ended();
                    break Body::ending(gathered, Ok(Piece::Trailers(trailers)));
                }
                Ok(Some(Event::Broken(fault))) => {
                    under_way.body_ended();
                    fault
                }
                other => under_way.call.fault_of(unexpected(&other)),
            };
            break Body::ending(gathered, Err(fault));
        };
        Ok(Reply { head, body, cold, timings })
    }

    /// Nobody waits for the answer any more.
    pub(super) fn give_up(self, body: Incoming) {
        let reader = FrameReader::new(BodyDataStream::new(body));
        UnderWay { reader, call: self }.abandon();
    }

    /// The connection ended before the call did.
    fn lost(&self, error: FrameError) -> Outcome {
        Outcome::lost(self.fault_of(error))
    }

    fn fault_of(&self, error: FrameError) -> Fault {
        // Our own request may be what ended it.
        if let Some(fault) = self.source.fault() {
            return fault;
        }
        Counters::count(&self.shared.counters.lost);
        tracing::warn!(node = %self.node.address, execution_id = %self.id, %error,
            "a sandbox was lost with a call in it");
        self.shared.failed(&self.node);
        Fault::new(FaultClass::Crashed, "the sandbox was lost while the call was in it")
    }
}

/// A call that a node has taken, and whose outcome is not known.
struct UnderWay {
    reader: Reader,
    call: Call,
}

/// Waits for the answer to begin. Dropping it gives the call up.
struct Waiting(Option<UnderWay>);

impl Waiting {
    async fn next(&mut self) -> Result<Option<Event>, FrameError> {
        match &mut self.0 {
            Some(under_way) => under_way.reader.next().await,
            None => Ok(None),
        }
    }

    fn over(mut self) -> UnderWay {
        self.0.take().expect("taken only by what consumes self")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(under_way) = self.0.take() {
            under_way.abandon();
        }
    }
}

impl UnderWay {
    /// The body is complete, or the node has broken it off; the outcome follows, most often at
    /// once.
    fn body_ended(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        match self.reader.poll_next(&mut cx) {
            // Whoever called may not care how it ended.
            Poll::Ready(Ok(Some(Event::Outcome(outcome)))) => drop(self.call.told.send(*outcome)),
            // Nobody will say it.
            Poll::Ready(_) => {}
            Poll::Pending => {
                // Without a runtime there is no connection left, either.
                let Ok(runtime) = Handle::try_current() else { return };
                runtime.spawn(timeout(LONGEST_AFTERMATH, self.wait()));
            }
        }
    }

    /// Nobody reads the answer any more.
    fn abandon(self) {
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let longest = millis(self.call.shared.options.cancel_wait_ms);
            let told_and_heard = async {
                // If it cannot be told, it sees that the connection ends.
                if self.call.shared.cancel(&self.call.node, self.call.id).await.is_ok() {
                    self.wait().await;
                }
            };
            let _ = timeout(longest, told_and_heard).await;
        });
    }

    async fn wait(mut self) {
        while let Ok(Some(event)) = self.reader.next().await {
            if let Event::Outcome(outcome) | Event::Failed(outcome) = event {
                let _ = self.call.told.send(*outcome);
                return;
            }
        }
    }
}

/// The body of an answer that is under way.
struct Answer {
    first: Bytes,
    under_way: Option<UnderWay>,
}

impl Stream for Answer {
    type Item = Result<Piece, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first).into())));
        }
        let Some(under_way) = &mut self.under_way else { return Poll::Ready(None) };
        let event = ready!(under_way.reader.poll_next(cx));
        if let Ok(Some(Event::Data(bytes))) = event {
            return Poll::Ready(Some(Ok(bytes.into())));
        }
        let Some(under_way) = self.under_way.take() else { return Poll::Ready(None) };
        Poll::Ready(match event {
            Ok(Some(Event::End)) => {
                under_way.body_ended();
                None
            }
            Ok(Some(Event::Trailers(trailers))) => {
                under_way.body_ended();
                Some(Ok(Piece::Trailers(trailers)))
            }
            Ok(Some(Event::Broken(fault))) => {
                under_way.body_ended();
                Some(Err(fault))
            }
            other => Some(Err(under_way.call.fault_of(unexpected(&other)))),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.abandon();
        }
    }
}
