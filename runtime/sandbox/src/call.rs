//! The life of a call: get a worker, open the exchange, pass the answer on, say how it ended.
//!
//! A call whose answer comes whole, which is nearly every call, is over when `invoke` returns: no
//! task, no channel, one wake-up. Otherwise a task of its own drives the exchange from the head of
//! the answer on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_protocol::call::{
    Body, Outcome, Piece, Reply, ResponseHead, Target, Timings, VersionKey, micros,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::wire::INITIAL_CREDIT_BYTES;
use futures::Stream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{timeout, timeout_at};

use crate::asked::Asked;
use crate::attend::attend;
use crate::backlog::{Backlog, Passed};
use crate::behind::{Behind, Waited};
use crate::exchange::{Event, Exchange, Held};
use crate::metrics::Counters;
use crate::sandbox::Shared;
use crate::state::{Admission, Grant, Refusal, Turn};
use crate::version::Insisted;
use crate::worker::Worker;

/// Workers that may die with a call that they have not begun.
const WORKERS_TRIED: u32 = 3;

/// A call that waits asks for a worker of its own once more after this.
const INSISTS_EVERY: Duration = Duration::from_secs(1);

/// The same at first while its turn seems to come soon, and then twice as long each time.
const INSISTS_SOON: Duration = Duration::from_millis(10);

/// Pieces of an answer that wait for their consumer. Credit bounds their bytes.
const PIECES: usize = 64;

/// The consumer's progress is told to the worker in steps of this size.
const CREDIT_STEP_BYTES: u32 = INITIAL_CREDIT_BYTES / 2;

impl Shared {
    /// See [`cloudserve_protocol::call::Invoker`].
    ///
    /// What it keeps for what is rare is boxed where it comes to that: the future is copied with all
    /// that it may have to keep.
    pub(crate) async fn call(
        self: &Arc<Self>,
        mut asked: Box<Asked>,
    ) -> Result<Reply, Box<Outcome>> {
        let arrived = asked.seen_at;
        let mut since = arrived;
        let mut workers = 0;
        loop {
            if since >= asked.deadline {
                let timeout_ms = asked.target.limits.timeout_ms;
                return Err(Box::new(Outcome::not_started(Fault::timeout(timeout_ms))));
            }
            let mut exchange = self.begin(asked, arrived, since).await?;
            workers += 1;
            let ending = match exchange.get().next().await {
                Event::Head { head, body, end } => {
                    let (reply, lost) = answer(exchange, head, body, end);
                    if let Some(exchange) = lost {
                        Box::pin(finish(exchange, Event::Lost)).await;
                    }
                    return Ok(reply);
                }
                ending => ending,
            };
            if workers < WORKERS_TRIED && matches!(ending, Event::Lost) {
                match exchange.take_back() {
                    Ok(back) => {
                        asked = back;
                        asked.seen_at = Instant::now();
                        since = asked.seen_at;
                        continue;
                    }
                    Err(begun) => exchange = begun,
                }
            }
            let (over, _) = Box::pin(exchange.finish(ending)).await;
            return Err(Box::new(over));
        }
    }

    /// Waits, from `since` on, for a worker, or in one. When it returns, the worker has the request.
    async fn begin(
        self: &Arc<Self>,
        mut asked: Box<Asked>,
        arrived: Instant,
        since: Instant,
    ) -> Result<Held, Box<Outcome>> {
        let mut turn = Turn::Comes;
        loop {
            let refuse = |refusal, target: &Target| {
                let mut account_limit = None;
                if matches!(refusal, Refusal::Busy) {
                    Counters::count(&self.counters.refused);
                    account_limit = self
                        .with_state(|state, _| state.is_exhausted(target.owner_id))
                        .then_some(self.options.platform.user_concurrency.max(1));
                }
                Err(Box::new(refused(refusal, target, arrived, account_limit)))
            };
            match self.with_state(|state, todo| state.admit(&mut asked, turn, todo)) {
                Admission::Worker(worker) => match self.open(worker, asked, arrived) {
                    Ok(exchange) => return Ok(exchange),
                    Err(back) => asked = back,
                },
                Admission::Behind(lane) => {
                    match Behind::new(self, asked, lane, arrived).wait().await {
                        Waited::Running(exchange) => return Ok(exchange),
                        Waited::Again(back) => asked = back,
                        Waited::TooLong(back) => (asked, turn) = (back, Turn::Insists),
                        Waited::Lost => {
                            let queue_us = micros(arrived.elapsed());
                            let timings = Timings { queue_us, ..Timings::default() };
                            return Err(Box::new(Outcome { timings, ..Outcome::lost(lost()) }));
                        }
                    }
                }
                Admission::Wait { ticket, granted } => {
                    let key = asked.target.key();
                    let waiting = Waiting { shared: self, key, ticket, granted };
                    match Box::pin(self.wait(waiting, asked.deadline, turn, since)).await {
                        Grant::Worker(worker) => match self.open(worker, asked, arrived) {
                            Ok(exchange) => return Ok(exchange),
                            Err(back) => asked = back,
                        },
                        Grant::Again | Grant::TooLong | Grant::Lost => turn = Turn::HasCome,
                        Grant::Refused(refusal) => return refuse(refusal, &asked.target),
                    }
                }
                Admission::Refused(refusal) => return refuse(refusal, &asked.target),
            }
            asked.seen_at = Instant::now();
            if asked.seen_at >= asked.deadline {
                let refused = refuse(Refusal::Busy, &asked.target);
                // It may have been told to ask again, and does not: its place is the next one's.
                let key = asked.target.key();
                self.with_state(|state, todo| state.place_unused(key, todo));
                return refused;
            }
        }
    }

    /// Hands the request to a worker, unless it died a moment ago.
    fn open(
        self: &Arc<Self>,
        mut worker: Box<Worker>,
        mut asked: Box<Asked>,
        arrived: Instant,
    ) -> Result<Held, Box<Asked>> {
        if attend(&mut worker).is_alive() {
            let now = Instant::now();
            asked.seen_at = now;
            let (cold, timings) = waited(&worker, arrived, now);
            return Ok(Held::new(Exchange::open(self, worker, asked, now, cold, timings)));
        }
        let id = worker.process.id;
        self.with_state(|state, todo| state.lost(&asked.target, id, false, todo));
        Err(asked)
    }

    /// Waits in the version's queue.
    async fn wait(
        &self,
        mut waiting: Waiting<'_>,
        deadline: Instant,
        turn: Turn,
        since: Instant,
    ) -> Grant {
        let key = waiting.key;
        let gone = Grant::Refused(Refusal::Draining);
        if turn != Turn::Insists {
            let patience = Duration::from_millis(self.options.scale_after_ms.into());
            // Of a call that has waited before, what is left of it.
            let patience = patience.saturating_sub(since.elapsed());
            if let Ok(granted) = timeout(patience, &mut waiting.granted).await {
                return granted.unwrap_or(gone);
            }
        }
        let longest = Duration::from_millis(self.options.platform.queue_wait_ms.into());
        let until = deadline.min(since + longest);
        let mut soon_after = INSISTS_SOON;
        loop {
            // Again and again: a boot that was ordered for it may have failed.
            let insisted = self.with_state(|state, todo| state.insist(key, waiting.ticket, todo));
            let pause = if insisted == Insisted::Waits { soon_after } else { INSISTS_EVERY };
            soon_after = (2 * soon_after).min(INSISTS_EVERY / 8);
            let soon = until.min(Instant::now() + pause);
            if let Ok(granted) = timeout_at(soon.into(), &mut waiting.granted).await {
                return granted.unwrap_or(gone);
            }
            if soon == until {
                let is_loading = self.with_state(|state, _| state.is_loading(key));
                let is_late = is_loading && until == deadline;
                return Grant::Refused(if is_late { Refusal::StillLoading } else { Refusal::Busy });
            }
        }
    }
}

/// `account_limit`: the calls that the account may have, if that is how many it has.
fn refused(
    refusal: Refusal,
    target: &Target,
    arrived: Instant,
    account_limit: Option<u32>,
) -> Outcome {
    let waited_us = micros(arrived.elapsed());
    let fault = match refusal {
        Refusal::Boot(failure) => {
            let boot_us = micros(failure.took).min(waited_us);
            return Outcome {
                started: failure.started,
                cold: true,
                logs: failure.log.clone(),
                logs_truncated: failure.log_is_cut,
                timings: Timings { queue_us: waited_us - boot_us, boot_us, exec_us: 0 },
                fault: Some(failure.fault.clone()),
                ..Outcome::default()
            };
        }
        Refusal::StillLoading => Fault::timeout(target.limits.timeout_ms),
        Refusal::Draining => Fault::shutting_down(),
        Refusal::Busy => too_many(target.limits.concurrency, account_limit),
    };
    let timings = Timings { queue_us: waited_us, ..Timings::default() };
    Outcome { timings, ..Outcome::not_started(fault) }
}

fn too_many(concurrency: u32, account_limit: Option<u32>) -> Fault {
    let (limit, whose) = match account_limit {
        Some(limit) => (limit, format!("the account's functions run {limit} at once together")),
        None => {
            (concurrency, format!("the function runs {concurrency} at once (limits.concurrency)"))
        }
    };
    let message = format!(
        "too many calls at the same time: {whose} and the queue was full or too slow; try again"
    );
    Fault::new(FaultClass::ConcurrencyLimit, message).with_limit(limit)
}

/// Whether the call waited for this worker to load, and where the time since its arrival went.
fn waited(worker: &Worker, arrived: Instant, now: Instant) -> (bool, Timings) {
    let waited = now - arrived;
    let load = worker.assigned.as_ref().and_then(|assigned| {
        let until = assigned.loaded_at.filter(|at| assigned.calls == 0 && *at > arrived)?;
        Some(until - assigned.begun_at.max(arrived))
    });
    let boot = load.unwrap_or_default().min(waited);
    let queue = waited.saturating_sub(boot);
    (load.is_some(), Timings { queue_us: micros(queue), boot_us: micros(boot), exec_us: 0 })
}

/// A place in a version's queue. Leaving it loses no worker, even one that is granted meanwhile.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    key: VersionKey,
    ticket: u64,
    granted: oneshot::Receiver<Grant>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.granted.close();
        let granted = self.granted.try_recv();
        self.shared.with_state(|state, todo| {
            match granted {
                Ok(Grant::Worker(worker)) => state.unused(worker, todo),
                Ok(Grant::Again) => state.place_unused(self.key, todo),
                _ => {}
            }
            state.leave_queue(self.key, self.ticket);
        });
    }
}

/// The answer has begun: takes what there is of it at once, and leaves the rest to a task. What
/// comes back beside it is to be finished first: the answer is complete, and its worker lost.
fn answer(
    mut exchange: Held,
    head: ResponseHead,
    first: Bytes,
    end: bool,
) -> (Reply, Option<Held>) {
    let (cold, timings) = (exchange.get().cold(), exchange.get().timings());
    let mut backlog = Backlog::default();
    backlog.add(first, end);
    let ending = loop {
        let mut cx = Context::from_waker(Waker::noop());
        match exchange.get().poll_next(&mut cx) {
            Poll::Pending => break None,
            Poll::Ready(Event::Chunk { bytes, end }) => backlog.add(bytes, end),
            Poll::Ready(Event::Trailers(trailers)) => backlog.end_with(trailers),
            Poll::Ready(ending) => break Some(ending),
        }
    };
    let mut lost = None;
    let body = match (ending, backlog.is_whole()) {
        // The body is complete, however the call ended.
        (Some(ending), true) => {
            match exchange.finish_at_once(ending) {
                // Whoever called may not care how it ended.
                Ok((over, told)) => drop(told.send(over)),
                Err(exchange) => lost = Some(exchange),
            }
            backlog.into_body()
        }
        (None, true) => {
            tokio::spawn(finish_quietly(exchange));
            backlog.into_body()
        }
        (ending, false) => {
            let (pieces, incoming) = mpsc::channel(PIECES);
            let progress = Arc::new(Progress::default());
            if let Some(first) = backlog.take() {
                // Cannot fail: the channel is new and its receiver is at hand.
                let _ = pieces.try_send(Ok(first));
            }
            tokio::spawn(pass_on(exchange, ending, pieces, progress.clone()));
            Body::Stream(Box::pin(Answer { incoming, progress, is_over: false }))
        }
    };
    (Reply { head, body, cold, timings }, lost)
}

/// Ends a call whose answer is complete, or was cut off. Says why it failed, if it did.
async fn finish(exchange: Held, ending: Event) -> Option<Fault> {
    let (over, told) = exchange.finish(ending).await;
    let fault = over.fault.clone();
    // Whoever called may not care how it ended.
    let _ = told.send(over);
    fault
}

/// The answer is complete; the call goes on (`waitUntil`).
async fn finish_quietly(mut exchange: Held) {
    let ending = exchange.get().next().await;
    finish(exchange, ending).await;
}

/// What the consumer of an answer has taken.
#[derive(Debug, Default)]
struct Progress {
    taken_bytes: AtomicU32,
    step: Notify,
}

/// Drives an exchange whose answer is streamed. Whoever reads slowly holds up neither the end of the
/// call nor those that wait in the worker: what does not fit is kept here, and credit bounds it.
async fn pass_on(
    mut exchange: Held,
    mut ending: Option<Event>,
    pieces: mpsc::Sender<Result<Passed, Fault>>,
    progress: Arc<Progress>,
) {
    let mut backlog = Backlog::default();
    let ending = loop {
        let event = if let Some(event) = ending.take() {
            event
        } else {
            tokio::select! {
                event = exchange.get().next() => event,
                Ok(place) = pieces.reserve(), if backlog.has_more() => {
                    if let Some(passed) = backlog.take() {
                        place.send(Ok(passed));
                    }
                    continue;
                }
                () = progress.step.notified() => {
                    exchange.get().grant(progress.taken_bytes.swap(0, Ordering::Relaxed));
                    continue;
                }
                () = pieces.closed(), if !backlog.is_whole() => {
                    exchange.wind_down().await;
                    return;
                }
            }
        };
        match event {
            Event::Chunk { bytes, end } => backlog.add(bytes, end),
            Event::Trailers(trailers) => backlog.end_with(trailers),
            ending => break ending,
        }
        while let Ok(place) = pieces.try_reserve()
            && let Some(passed) = backlog.take()
        {
            place.send(Ok(passed));
        }
    };
    // The outcome comes first: whoever reads may stall, for as long as it likes.
    let fault = finish(exchange, ending).await.unwrap_or_else(lost);
    while let Some(passed) = backlog.take() {
        if pieces.send(Ok(passed)).await.is_err() {
            return;
        }
    }
    if !backlog.is_whole() {
        let _ = pieces.send(Err(fault)).await;
    }
}

fn lost() -> Fault {
    Fault::new(FaultClass::Crashed, "the answer was cut off")
}

/// A streamed answer, as its consumer sees it.
struct Answer {
    incoming: mpsc::Receiver<Result<Passed, Fault>>,
    progress: Arc<Progress>,
    is_over: bool,
}

impl Stream for Answer {
    type Item = Result<Piece, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let received = match self.incoming.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(received) => received,
        };
        // The channel closes without a last piece only when its task is lost.
        let passed = received.unwrap_or_else(|| Err(lost()));
        self.is_over = passed.as_ref().map_or(true, |passed| passed.end);
        Poll::Ready(match passed {
            Err(fault) => Some(Err(fault)),
            Ok(Passed { piece, .. }) => {
                let length = match &piece {
                    Piece::Data(bytes) => bytes.len(),
                    Piece::Trailers(_) => return Poll::Ready(Some(Ok(piece))),
                };
                self.progress.take(length);
                // The last piece may be nothing but the end.
                (length > 0 || !self.is_over).then_some(Ok(piece))
            }
        })
    }
}

impl Progress {
    fn take(&self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let before = self.taken_bytes.fetch_add(len, Ordering::Relaxed);
        if before < CREDIT_STEP_BYTES && before + len >= CREDIT_STEP_BYTES {
            self.step.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_told_the_bound_that_was_met() {
        for (account_limit, limit, said) in
            [(None, 10, "the function runs 10 at once"), (Some(50), 50, "functions run 50 at once")]
        {
            let fault = too_many(10, account_limit);
            assert_eq!(fault.limit, Some(limit));
            assert!(fault.message.contains(said), "{}", fault.message);
        }
    }
}
