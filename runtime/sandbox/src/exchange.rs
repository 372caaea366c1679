//! One call in one worker: the frames of it, both ways, and the rules the worker must keep.
//!
//! The exchange owns the worker's socket for as long as the call lasts and is polled by whoever
//! waits for the call, so a warm call wakes one task once: the caller's. It ends with
//! [`Exchange::finish_at_once`] or [`Exchange::finish_lost`]; whoever holds one keeps it in a
//! [`Held`], which sees to that when it is dropped.

mod body;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_protocol::call::{Outcome, ResponseHead, Target, Timings, micros};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::wire::{
    Done, FromWorker, INITIAL_CREDIT_BYTES, SWITCHING_PROTOCOLS, ToWorker,
};
use futures::poll;
use tokio::sync::oneshot;
use tracing::warn;

use crate::asked::Asked;
use crate::attend::FRAMES_AT_ONCE;
use crate::death::{DeathCause, as_claimed};
use crate::logs::LogBuffer;
use crate::sandbox::Shared;
use crate::worker::{ChannelError, Worker};

/// Time after which other tasks get their turn while an answer is looked for.
const BETWEEN_TURNS: Duration = Duration::from_micros(50);

/// What happened in a call.
#[derive(Debug)]
pub(crate) enum Event {
    /// The answer begins; `end` says whether `body` is all of it.
    Head { head: ResponseHead, body: Bytes, end: bool },
    /// More of the answer.
    Chunk { bytes: Bytes, end: bool },
    /// The answer is complete, and this comes after it.
    Trailers(HeaderBlock),
    /// The worker says the call is over.
    Done(Done),
    /// The worker is gone, or was just ended. Ask its process why.
    Lost,
    /// The worker was ended because of what it sent.
    Refused(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    Streaming,
    Answered,
}

/// Whether the answer is looked for instead of slept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Off,
    Until(Instant),
    /// Something was read before the event loop had seen it.
    HasSeen,
}

/// See the module.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    worker: Box<Worker>,
    /// What was asked, for as long as it may have to be asked elsewhere.
    asked: Box<Asked>,
    call: u32,
    phase: Phase,
    is_cancelled: bool,
    kill_at: Instant,
    /// Why the request's body was cut off, if it was.
    upload_fault: Option<Fault>,
    /// Body bytes the worker may still send.
    window_bytes: u64,
    received_bytes: u64,
    begun: Instant,
    /// When the answer began, if it has.
    answered: Instant,
    watch: Watch,
    log: LogBuffer,
    cold: bool,
    timings: Timings,
}

impl Exchange {
    /// Writes the request. It leaves when the exchange is polled.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        worker: Box<Worker>,
        mut asked: Box<Asked>,
        begun: Instant,
        cold: bool,
        timings: Timings,
    ) -> Self {
        let call = worker.line.ask(&mut asked);
        let is_lone = asked.is_lone();
        let mut exchange = Self::resume(shared, worker, asked, call, begun, timings);
        exchange.cold = cold;
        if is_lone {
            exchange.watch = Watch::Until(exchange.begun + shared.options.lone_call_watch());
        }
        exchange
    }

    /// Goes on with a call whose request the worker has.
    pub(crate) fn resume(
        shared: &Arc<Shared>,
        mut worker: Box<Worker>,
        mut asked: Box<Asked>,
        call: u32,
        begun: Instant,
        timings: Timings,
    ) -> Self {
        if !asked.is_repeatable() {
            asked.forget_request();
        }
        let mut log = LogBuffer::new(asked.target.limits.log_bytes);
        if let Some(earlier) = worker.assigned.as_mut().and_then(|a| a.load_log.take()) {
            log.merge(earlier);
        }
        if let Some(earlier) = asked.earlier.take() {
            log.merge(earlier);
        }
        let kill_at = asked.deadline + Duration::from_millis(shared.options.kill_grace_ms.into());
        Self {
            shared: shared.clone(),
            worker,
            asked,
            call,
            phase: Phase::Asked,
            is_cancelled: false,
            kill_at,
            upload_fault: None,
            window_bytes: INITIAL_CREDIT_BYTES.into(),
            received_bytes: 0,
            begun,
            answered: begun,
            watch: Watch::Off,
            log,
            cold: false,
            timings,
        }
    }

    pub(crate) fn cold(&self) -> bool {
        self.cold
    }

    pub(crate) fn timings(&self) -> Timings {
        self.timings
    }

    /// What happens next.
    pub(crate) async fn next(&mut self) -> Event {
        while let Watch::Until(until) = self.watch {
            if let Poll::Ready(event) = poll!(poll_fn(|cx| self.poll_next(cx))) {
                self.watch = Watch::Off;
                return event;
            }
            if self.look() {
                self.watch = Watch::HasSeen;
            } else if Instant::now() >= until {
                self.watch = Watch::Off;
            } else {
                // Whatever else has come.
                tokio::task::yield_now().await;
            }
        }
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Looks for the worker's answer for a turn. Whether something has come.
    fn look(&mut self) -> bool {
        let until = Instant::now() + BETWEEN_TURNS;
        while Instant::now() < until {
            // The worker may have been woken on this core.
            std::thread::yield_now();
            if self.worker.look() {
                return true;
            }
        }
        false
    }

    /// As [`Exchange::next`]. Looks at the clock itself: a worker that never stops talking would
    /// keep the timer from being polled. Reads first: what has been said counts, however late it is
    /// read.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..FRAMES_AT_ONCE {
            // Reading comes first: it registers the caller's waker before the request leaves.
            match self.worker.poll_frame(cx) {
                Poll::Ready(Ok(frame)) => match self.take(frame) {
                    None => {}
                    // The alarm is not looked at while there is always more.
                    Some(Event::Chunk { end: false, .. }) if Instant::now() >= self.kill_at => {
                        return Poll::Ready(self.overdue());
                    }
                    Some(event) => return Poll::Ready(event),
                },
                Poll::Ready(Err(ChannelError::Closed | ChannelError::Io(_))) => {
                    return Poll::Ready(Event::Lost);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(self.violation(&error.to_string())),
                Poll::Pending => {
                    self.poll_upload(cx);
                    if self.worker.alarm.poll(cx, self.kill_at).is_ready() {
                        return Poll::Ready(self.overdue());
                    }
                    return Poll::Pending;
                }
            }
        }
        if Instant::now() >= self.kill_at {
            return Poll::Ready(self.overdue());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the worker at its deadline. A function that has answered by then is not to blame for the wait
    /// for room: it pays for what it has computed meanwhile.
    fn overdue(&mut self) -> Event {
        let cause = match self.worker.waits_since() {
            Some((answered, computed)) => {
                self.timings.exec_us = micros(answered - self.begun + computed);
                DeathCause::NoRoom
            }
            None => DeathCause::Timeout,
        };
        self.worker.process.kill(cause);
        Event::Lost
    }

    fn violation(&self, what: &str) -> Event {
        warn!(worker = self.worker.process.id, violation = what, "worker broke the protocol");
        self.worker.process.kill(DeathCause::ProtocolViolation);
        Event::Lost
    }

    /// Checks a frame and takes note of it.
    fn take(&mut self, frame: FromWorker) -> Option<Event> {
        match frame {
            FromWorker::Head { call, status, headers, body, end }
                if call == self.call && self.phase == Phase::Asked =>
            {
                Some(self.take_head(status, headers, body, end))
            }
            FromWorker::Chunk { call, bytes, end }
                if call == self.call && self.phase == Phase::Streaming =>
            {
                if let Some(refusal) = self.take_piece(bytes.len()) {
                    return Some(refusal);
                }
                if end {
                    self.phase = Phase::Answered;
                }
                (end || !bytes.is_empty()).then_some(Event::Chunk { bytes, end })
            }
            FromWorker::Trailers { call, trailers }
                if call == self.call && self.phase == Phase::Streaming =>
            {
                if let Some(refusal) = self.refuse_headers(&trailers) {
                    return Some(refusal);
                }
                self.phase = Phase::Answered;
                Some(Event::Trailers(trailers))
            }
            FromWorker::Done { call, done }
                if call == self.call
                    && (self.phase == Phase::Answered
                        || done.fault.is_some()
                        || self.is_cancelled) =>
            {
                Some(Event::Done(done))
            }
            FromWorker::Log { level, timestamp_ms, message, .. } => {
                self.log.push(level, timestamp_ms, message);
                None
            }
            FromWorker::Credit { call, bytes } => {
                if let Some(upload) = self.asked.upload.as_mut().filter(|_| call == self.call) {
                    upload.grant(bytes);
                }
                None
            }
            FromWorker::CodeCache(bytes) => {
                let taken = self.worker.take_code_cache(bytes);
                taken.is_err().then(|| self.violation("more code caches than it may send"))
            }
            _ => Some(self.violation("a frame that is not expected at this point of a call")),
        }
    }

    fn take_head(&mut self, status: u16, headers: HeaderBlock, body: Bytes, end: bool) -> Event {
        self.answered = Instant::now();
        self.timings.exec_us = micros(self.answered - self.begun);
        let limits = &self.asked.target.limits;
        let is_switch = status == SWITCHING_PROTOCOLS && self.asked.is_upgrade && !end;
        if !is_switch && !(200..=599).contains(&status) {
            return self.violation("a status that no answer has");
        }
        if let Some(refusal) = self.refuse_headers(&headers) {
            return refusal;
        }
        if end && body.len() as u64 > limits.response_body_bytes {
            let limit = limits.response_body_bytes;
            return self.too_large(&format!(
                "its body is larger than {limit} bytes (limits.responseBodyBytes raises it)"
            ));
        }
        if end {
            self.phase = Phase::Answered;
            self.received_bytes = body.len() as u64;
        } else {
            self.phase = Phase::Streaming;
            if let Some(refusal) = self.take_piece(body.len()) {
                return refusal;
            }
        }
        let body = self.worker.house(body);
        Event::Head { head: ResponseHead { status, headers }, body, end }
    }

    fn refuse_headers(&self, headers: &HeaderBlock) -> Option<Event> {
        let limit = self.shared.options.response_head_bytes;
        (headers.as_bytes().len() > limit)
            .then(|| self.too_large(&format!("its headers are larger than {limit} bytes")))
    }

    /// Accounts for a piece of a streamed answer.
    fn take_piece(&mut self, len: usize) -> Option<Event> {
        let len = len as u64;
        if len > self.window_bytes {
            return Some(self.violation("more of a body than it was granted"));
        }
        self.window_bytes -= len;
        self.received_bytes += len;
        let limit = self.asked.target.limits.streamed_response_bytes;
        (self.received_bytes > limit).then(|| {
            self.too_large(&format!(
                "its body is larger than {limit} bytes (limits.streamedResponseBytes raises it)"
            ))
        })
    }

    fn too_large(&self, why: &str) -> Event {
        self.worker.process.kill(DeathCause::ProtocolViolation);
        Event::Refused(Fault::new(
            FaultClass::ResponseTooLarge,
            format!("the function's answer is too large: {why}"),
        ))
    }

    /// The consumer of the answer has taken so much of it.
    pub(crate) fn grant(&mut self, bytes: u32) {
        if self.phase == Phase::Streaming {
            self.window_bytes += u64::from(bytes);
            self.worker.send(&ToWorker::Credit { call: self.call, bytes });
        }
    }

    /// Ends an exchange of which all is known, and says what that is and who is to be told it. Comes
    /// back if the exit of the worker says the rest: see [`Exchange::finish_lost`]. The worker goes back
    /// unless it must not be used again.
    ///
    /// Not asynchronous: nearly every call ends here, and what can wait is copied about with all that
    /// it may have to keep.
    fn finish_at_once(self: Box<Self>, ending: Event) -> Result<Over, Box<Self>> {
        if !matches!(ending, Event::Done(_) | Event::Refused(_)) {
            return Err(self);
        }
        let mut outcome = self.outcome();
        let (received_bytes, answered) = (self.received_bytes, self.answered);
        let Self { shared, worker, asked, upload_fault, mut log, watch, .. } = *self;
        let Asked { target, told, .. } = *asked;
        match ending {
            Event::Done(done) => {
                let process = &worker.process;
                process.cpu.pay(done.cpu_us, received_bytes);
                outcome.cpu_us = done.cpu_us;
                outcome.memory_bytes = done.memory_bytes;
                let busy_us = done.busy_us;
                outcome.fault = done.fault.map(as_claimed);
                if let Some(lines) = process.pipes.take_log(watch == Watch::HasSeen) {
                    log.merge(lines);
                }
                if done.discard {
                    let cause = outcome.fault.as_ref().and_then(|fault| cause_of(fault.class));
                    lose(&shared, &target, worker, cause);
                } else {
                    shared
                        .with_state(|state, todo| state.give_back(worker, busy_us, answered, todo));
                }
            }
            Event::Refused(fault) => {
                outcome.fault = Some(fault);
                lose(&shared, &target, worker, Some(DeathCause::ProtocolViolation));
            }
            Event::Head { .. } | Event::Chunk { .. } | Event::Trailers(_) | Event::Lost => {}
        }
        Ok((complete(outcome, log, upload_fault), told))
    }

    /// The same when the worker is gone, or was just ended. The books are kept before anything is
    /// waited for.
    async fn finish_lost(self: Box<Self>) -> Over {
        let mut outcome = self.outcome();
        let Self { shared, worker, asked, upload_fault, mut log, .. } = *self;
        let Asked { target, told, .. } = *asked;
        let process = worker.process.clone();
        lose(&shared, &target, worker, process.cause());
        let patience = Duration::from_millis(shared.options.kill_grace_ms.into());
        let report = process.exited(patience).await;
        outcome.fault = Some(report.fault(&target.limits));
        if let Some(lines) = process.pipes.take_log(false) {
            log.merge(lines);
        }
        (complete(outcome, log, upload_fault), told)
    }

    /// One or the other.
    async fn finish(self: Box<Self>, ending: Event) -> Over {
        match self.finish_at_once(ending) {
            Ok(over) => over,
            Err(exchange) => exchange.finish_lost().await,
        }
    }

    /// What is known of the call before its end. A worker that is lost does not say what it used: it
    /// counts as all that it had.
    fn outcome(&self) -> Outcome {
        Outcome {
            started: true,
            cold: self.cold,
            timings: self.timings,
            memory_bytes: u64::from(self.asked.target.limits.memory_mb) << 20,
            ..Outcome::default()
        }
    }

    /// The worker is lost. The request, if it had not begun it: it may run elsewhere.
    fn take_back(self: Box<Self>) -> Result<Box<Asked>, Box<Self>> {
        if self.phase != Phase::Asked || !self.worker.line.take_back(self.call) {
            return Err(self);
        }
        let Self { shared, worker, mut asked, mut log, .. } = *self;
        if let Some(lines) = worker.process.pipes.take_log(false) {
            log.merge(lines);
        }
        asked.earlier = Some(log);
        let cause = worker.process.cause();
        lose(&shared, &asked.target, worker, cause);
        Ok(asked)
    }

    /// Nobody waits for the answer any more: gives the worker a moment to finish, then ends it.
    async fn wind_down(mut self: Box<Self>) {
        self.asked.upload = None;
        self.is_cancelled = true;
        self.worker.send(&ToWorker::Cancel { call: self.call });
        let patience = Duration::from_millis(self.shared.options.cancel_grace_ms.into());
        let ending = tokio::time::timeout(patience, async {
            loop {
                match self.next().await {
                    Event::Head { .. } | Event::Trailers(_) => {}
                    // Credit without a consumer lets the handler come to its end.
                    Event::Chunk { bytes, .. } => {
                        self.grant(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    }
                    ending => return ending,
                }
            }
        })
        .await;
        let ending = ending.unwrap_or_else(|_elapsed| {
            self.worker.process.kill(DeathCause::Cancelled);
            Event::Lost
        });
        let (mut outcome, told) = self.finish(ending).await;
        outcome.fault.get_or_insert_with(Fault::cancelled);
        // Nobody may want to know.
        let _ = told.send(outcome);
    }
}

/// What there is to say of a call, and who is to be told it.
type Over = (Outcome, oneshot::Sender<Outcome>);

/// An outcome with the log of its call, and with the reason of a fault that says less than is known.
fn complete(mut outcome: Outcome, mut log: LogBuffer, upload_fault: Option<Fault>) -> Outcome {
    // What the handler made of a body that was cut off says less than why it was.
    if let (Some(fault), Some(reason)) = (&mut outcome.fault, upload_fault)
        && fault.class == FaultClass::HandlerError
    {
        *fault = reason;
    }
    if let Some(fault) = &outcome.fault {
        log.push_fault(fault);
    }
    (outcome.logs, outcome.logs_truncated) = log.finish();
    outcome
}

/// A worker does not come back from its call, `cause` being why, unless it said that it would end.
fn lose(shared: &Shared, target: &Target, worker: Box<Worker>, cause: Option<DeathCause>) {
    let id = worker.process.id;
    let by_itself = cause.is_none_or(DeathCause::is_by_itself);
    match cause {
        Some(cause) => worker.end(cause),
        None => drop(worker),
    }
    shared.with_state(|state, todo| state.lost(target, id, by_itself, todo));
}

/// The cause of death of a worker that is discarded after this fault; `None` if its exit says it.
fn cause_of(class: FaultClass) -> Option<DeathCause> {
    match class {
        FaultClass::Timeout => Some(DeathCause::Timeout),
        FaultClass::CpuLimit => Some(DeathCause::CpuLimit),
        FaultClass::MemoryLimit => Some(DeathCause::MemoryLimit),
        _ => None,
    }
}

/// Holds an exchange so that it ends in order even when its holder is dropped.
pub(crate) struct Held(Option<Box<Exchange>>);

impl Held {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self(Some(Box::new(exchange)))
    }

    /// The exchange goes on.
    pub(crate) fn get(&mut self) -> &mut Exchange {
        self.0.as_mut().expect("taken only by the methods that consume self")
    }

    /// See [`Exchange::finish_at_once`].
    pub(crate) fn finish_at_once(mut self, ending: Event) -> Result<Over, Self> {
        let exchange = self.0.take().expect("taken only by the methods that consume self");
        exchange.finish_at_once(ending).map_err(|exchange| Self(Some(exchange)))
    }

    /// Ends the exchange, and waits for that if it has to. Whoever stops waiting leaves it to be told.
    pub(crate) async fn finish(self, ending: Event) -> Over {
        match self.finish_at_once(ending) {
            Ok(over) => over,
            Err(held) => held.finish_lost().await,
        }
    }

    async fn finish_lost(mut self) -> Over {
        let exchange = self.0.take().expect("taken only by the methods that consume self");
        let runtime = exchange.shared.runtime.clone();
        let (done, finished) = oneshot::channel();
        runtime.spawn(async move {
            if let Err((over, told)) = done.send(exchange.finish_lost().await) {
                let _ = told.send(over);
            }
        });
        match finished.await {
            Ok(over) => over,
            // The runtime is going down, and whoever waits with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// See [`Exchange::take_back`].
    pub(crate) fn take_back(mut self) -> Result<Box<Asked>, Self> {
        let exchange = self.0.take().expect("taken only by the methods that consume self");
        exchange.take_back().map_err(|exchange| Self(Some(exchange)))
    }

    /// See [`Exchange::wind_down`].
    pub(crate) async fn wind_down(mut self) {
        let exchange = self.0.take().expect("taken only by the methods that consume self");
        exchange.wind_down().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            let runtime = exchange.shared.runtime.clone();
            runtime.spawn(exchange.wind_down());
        }
    }
}
