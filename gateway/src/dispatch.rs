//! One call: the request goes to the sandbox, under one deadline.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::{Body, Invoker, Outcome, Reply, RequestHead};
use cloudserve_protocol::fault::Fault;

use crate::body::{Incoming, Leftover, Received, late, receive};
use crate::meter::Call;
use crate::options::GatewayOptions;
use crate::patience::Patience;

/// Makes the call. Answers by the deadline plus the grace even if the sandbox does not.
pub(crate) async fn dispatch<B: Incoming>(
    invoker: &dyn Invoker,
    options: &GatewayOptions,
    call: &mut Call,
    patience: &Patience,
    head: RequestHead,
    body: B,
    leftover: Leftover,
) -> Result<Reply, Box<Outcome>> {
    let told = call.told();
    let call = &*call;
    let limit = call.target().limits.request_body_bytes;
    let received = if body.is_end_stream() {
        // Nearly always so, and then there is nothing to wait for.
        drop(body);
        Received { body: Body::Empty, overflow: None }
    } else {
        // A function is not to blame for a body that it was never shown.
        let receiving = receive(body, &head.headers, limit, options.whole_body_bytes, leftover);
        let received = by(call.deadline(), patience, receiving).await;
        received
            .unwrap_or_else(|| Err(late()))
            .map_err(|fault| Box::new(Outcome::not_started(fault)))?
    };
    let reply = invoker.invoke(call.invocation(head, received.body, told));
    let Some(mut overflow) = received.overflow else {
        return in_time(options, call, patience, reply).await;
    };
    in_time(options, call, patience, async move {
        let reply = tokio::select! {
            biased;
            Ok(()) = &mut overflow => None,
            reply = reply => Some(reply),
        };
        // An answer to the cut body does not hide that it was cut.
        reply
            .filter(|_| overflow.try_recv().is_err())
            .unwrap_or_else(|| Err(Box::new(Outcome::not_started(Fault::payload_too_large(limit)))))
    })
    .await
}

/// The reply by the deadline plus the grace, even if there is none.
pub(crate) async fn in_time(
    options: &GatewayOptions,
    call: &Call,
    patience: &Patience,
    reply: impl Future<Output = Result<Reply, Box<Outcome>>>,
) -> Result<Reply, Box<Outcome>> {
    let last_moment = call.deadline() + options.deadline_grace();
    by(last_moment, patience, reply).await.unwrap_or_else(|| {
        tracing::warn!(execution_id = %call.execution_id(), "no answer from the sandbox in time");
        let fault = Fault::timeout(call.target().limits.timeout_ms);
        Err(Box::new(Outcome::lost(fault)))
    })
}

/// What this resolves to, unless it takes longer.
async fn by<T>(
    last_moment: Instant,
    patience: &Patience,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let result = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => patience.poll(cx, last_moment).map(|()| None),
    });
    result.await
}

/// When the answer to a request that has just come must be complete.
pub(crate) fn deadline_of(arrived: Instant, timeout_ms: u32) -> Instant {
    arrived + Duration::from_millis(timeout_ms.into())
}
