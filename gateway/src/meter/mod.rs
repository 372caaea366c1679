//! One usage row per call, and a log row where there is something to say.
//!
//! Invariant: no usage row is dropped and nothing grows without bound. A call takes its place in
//! the queue before it begins, so that its row always fits; while storage does not keep up, new
//! calls wait. Log text has a bound of its own, and what exceeds it is dropped and counted.

mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use cloudserve_protocol::call::{
    Body, Invocation, LogLevel, LogLine, Outcome, RequestHead, Target, Timings,
};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::ExecutionId;
use cloudserve_store::{TelemetryStore, Timestamp};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::writer::Writer;
pub(crate) use self::writer::{megabytes, milliseconds};
use crate::metrics::Metrics;
use crate::options::GatewayOptions;
use crate::quota::{Allowance, Allowances, Spent, micro_gb_s};
use crate::trace::{Ended, Traced};
use crate::unread::Unread;

/// Makes rows of calls and sees to it that they are stored.
pub(crate) struct Meter {
    queue: mpsc::Sender<Finished>,
    shared: Arc<Shared>,
    closing: Arc<Notify>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What calls, answers and the writer share.
struct Shared {
    metrics: Arc<Metrics>,
    log_bytes: AtomicUsize,
    max_log_bytes: usize,
    /// Of one account; 0: no bound.
    max_log_bytes_per_day: u64,
    /// How long a sandbox may take to say what a call has used that nobody waits for.
    hang_up_wait: Duration,
    /// After its deadline, time in which the end of a call is told.
    deadline_grace: Duration,
}

/// What notices that no more log text is kept may take in any case, beside a sixteenth of the bound.
const NOTICE_BYTES: u64 = 1024 * 1024;

/// A place in the queue.
pub(crate) type Place = mpsc::OwnedPermit<Finished>;

/// A call that is over: it goes through the queue as it is.
pub(crate) type Finished = Box<Call>;

impl Meter {
    /// Starts the writer. Must be called within a tokio runtime.
    pub(crate) fn start(
        options: &GatewayOptions,
        store: Arc<dyn TelemetryStore>,
        allowances: Arc<Allowances>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (queue, rows) = mpsc::channel(options.usage_queue_rows.max(1));
        let shared = Arc::new(Shared {
            metrics,
            log_bytes: AtomicUsize::new(0),
            max_log_bytes: options.log_queue_bytes,
            max_log_bytes_per_day: options.log_bytes_per_day,
            hang_up_wait: options.hang_up_wait(),
            deadline_grace: options.deadline_grace(),
        });
        let closing = Arc::new(Notify::new());
        let writer = Writer {
            rows,
            store,
            allowances,
            shared: shared.clone(),
            closing: closing.clone(),
            batch_rows: options.telemetry_batch_rows.max(1),
            interval: Duration::from_millis(options.telemetry_interval_ms.into()),
        };
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Self { queue, shared, closing, writer }
    }

    /// Waits for a place in the queue until the deadline. `None`: there was none.
    pub(crate) async fn place(&self, deadline: Instant) -> Option<Place> {
        match self.queue.clone().try_reserve_owned() {
            Ok(place) => Some(place),
            Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(queue)) => {
                tokio::time::timeout_at(deadline.into(), queue.reserve_owned()).await.ok()?.ok()
            }
        }
    }

    /// Begins a call; from here on it leaves a row.
    pub(crate) fn begin(
        &self,
        place: Place,
        target: Arc<Target>,
        allowance: Arc<Allowance>,
        began: SystemTime,
        arrived: Instant,
        deadline: Instant,
    ) -> Box<Call> {
        self.shared.metrics.began();
        Box::new(Call {
            place: Some(place),
            shared: self.shared.clone(),
            execution_id: ExecutionId::new_at(began),
            target,
            allowance,
            began: began.into(),
            arrived,
            deadline,
            ended: None,
            told: None,
            trace: None,
            duration: Duration::ZERO,
            outcome: Outcome::default(),
            log_bytes: 0,
            micro_gb_s: 0,
        })
    }

    /// Places in use: calls in flight and rows not yet stored.
    pub(crate) fn places_in_use(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Takes no more calls, waits for those in flight and stores all rows, for at most this long.
    pub(crate) async fn drain(&self, time: Duration) {
        let Some(writer) = self.writer.lock().take() else { return };
        self.closing.notify_one();
        if tokio::time::timeout(time, writer).await.is_err() {
            let rows = self.places_in_use();
            tracing::error!(rows, "usage rows could not be stored in time");
        }
    }
}

/// A call that has begun. Dropping it records that its caller has gone. Boxed: it is passed on from
/// hand to hand until its row is stored.
pub(crate) struct Call {
    /// `None` once the row is on its way.
    place: Option<Place>,
    shared: Arc<Shared>,
    execution_id: ExecutionId,
    target: Arc<Target>,
    allowance: Arc<Allowance>,
    began: Timestamp,
    arrived: Instant,
    deadline: Instant,
    ended: Option<Instant>,
    /// What the sandbox will say of it.
    told: Option<oneshot::Receiver<Outcome>>,
    trace: Option<Box<Traced>>,
    /// The rest is known once it is over.
    duration: Duration,
    outcome: Outcome,
    log_bytes: usize,
    micro_gb_s: u64,
}

impl Call {
    /// The same, told of in this trace.
    pub(crate) fn traced(mut self: Box<Self>, trace: Option<Box<Traced>>) -> Box<Self> {
        self.trace = trace;
        self
    }

    /// What the function is told of the trace, if there is one.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        self.trace.as_ref().map(|trace| trace.traceparent())
    }

    /// The caller is told this status.
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(trace) = &mut self.trace {
            trace.answered(status);
        }
    }

    pub(crate) fn execution_id(&self) -> ExecutionId {
        self.execution_id
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Where its answer counts until it is read.
    pub(crate) fn unread(&self) -> &Unread {
        self.allowance.unread()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// When the end of the call must be told.
    pub(crate) fn last_moment(&self) -> Instant {
        self.deadline + self.shared.deadline_grace
    }

    /// How long the sandbox may take to say what a call has used that nobody waits for.
    pub(crate) fn hang_up_wait(&self) -> Duration {
        self.shared.hang_up_wait
    }

    /// The answer is complete, or will never be; the first time counts.
    pub(crate) fn stop_clock(&mut self) -> Duration {
        *self.ended.get_or_insert_with(Instant::now) - self.arrived
    }

    /// Where the sandbox says how the call has ended.
    pub(crate) fn told(&mut self) -> oneshot::Sender<Outcome> {
        let (teller, told) = oneshot::channel();
        self.told = Some(told);
        teller
    }

    /// What is asked of the sandbox, which says to `told` how the call has ended.
    pub(crate) fn invocation(
        &self,
        head: RequestHead,
        body: Body,
        told: oneshot::Sender<Outcome>,
    ) -> Invocation {
        let target = self.target.clone();
        let (execution_id, deadline) = (self.execution_id, self.deadline);
        Invocation { execution_id, target, deadline, head, body, told }
    }

    /// What it says, for whoever waits for it and then says [`Call::finish`].
    pub(crate) fn outcome(&mut self) -> Option<oneshot::Receiver<Outcome>> {
        self.told.take()
    }

    /// Waits for what it says. Whoever stops waiting leaves it to [`Call::finish`], or to the drop.
    pub(crate) async fn over(&mut self) -> Option<Outcome> {
        match &mut self.told {
            Some(told) => told.await.ok(),
            None => None,
        }
    }

    /// The call is over: records it. If the sandbox is still to say what it has used and written,
    /// waits for that elsewhere, for a bounded time.
    pub(crate) fn finish(mut self: Box<Self>, outcome: Outcome) {
        let Some(mut told) = self.told.take() else { return self.record(outcome) };
        match told.try_recv() {
            Ok(over) => self.record(as_told(over, outcome)),
            Err(TryRecvError::Closed) => self.record(outcome),
            Err(TryRecvError::Empty) => {
                let Ok(runtime) = Handle::try_current() else { return self.record(outcome) };
                self.stop_clock();
                runtime.spawn(async move {
                    let over = tokio::time::timeout(self.shared.hang_up_wait, told).await;
                    self.record(match over {
                        Ok(Ok(over)) => as_told(over, outcome),
                        _ => outcome,
                    });
                });
            }
        }
    }

    /// The function is over by its deadline. A caller may take longer to read what it has said, and
    /// nobody pays for that.
    fn duration(&mut self) -> Duration {
        let longest = self.last_moment() - self.arrived;
        self.stop_clock().min(longest)
    }

    fn record(mut self: Box<Self>, mut outcome: Outcome) {
        let Some(place) = self.place.take() else { return };
        let duration = self.duration();
        let class = outcome.fault.as_ref().map(|fault| fault.class);
        self.shared.metrics.ended(class, outcome.cold, duration);
        if let Some(trace) = self.trace.take() {
            trace.end(&Ended {
                execution_id: self.execution_id,
                target: &self.target,
                arrived: self.arrived,
                duration,
                outcome: &outcome,
            });
        }
        log_fault(&mut outcome);
        self.log_bytes = self.shared.take_logs(&self.allowance, self.began, &mut outcome);
        self.duration = paid(duration, &outcome);
        self.outcome = outcome;
        self.micro_gb_s =
            micro_gb_s(megabytes(self.outcome.memory_bytes), milliseconds(self.duration));
        self.allowance.used(self.spent());
        place.send(self);
    }

    /// What it has used.
    fn spent(&self) -> Spent {
        Spent { began: self.began, micro_gb_s: self.micro_gb_s }
    }

    /// The same call, whose row is not this one's any more.
    fn take_over(&mut self) -> Box<Self> {
        Box::new(Self {
            place: self.place.take(),
            shared: self.shared.clone(),
            execution_id: self.execution_id,
            target: self.target.clone(),
            allowance: self.allowance.clone(),
            began: self.began,
            arrived: self.arrived,
            deadline: self.deadline,
            ended: self.ended,
            told: self.told.take(),
            trace: self.trace.take(),
            duration: Duration::ZERO,
            outcome: Outcome::default(),
            log_bytes: 0,
            micro_gb_s: 0,
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.take_over().finish(Outcome::not_started(Fault::cancelled()));
        }
    }
}

/// The part of a call's time that its owner pays: until it had answered, if the answer then waited for room
/// and found none.
fn paid(duration: Duration, outcome: &Outcome) -> Duration {
    let class = outcome.fault.as_ref().map(|fault| fault.class);
    if !outcome.started || class != Some(FaultClass::ConcurrencyLimit) {
        return duration;
    }
    let Timings { queue_us, boot_us, exec_us } = outcome.timings;
    duration.min(Duration::from_micros(queue_us.saturating_add(boot_us).saturating_add(exec_us)))
}

/// What the sandbox says of a call whose end was told already, and why. That its caller has gone
/// explains less than what became of it.
fn as_told(mut over: Outcome, told: Outcome) -> Outcome {
    let has_gone = told.fault.as_ref().is_some_and(|f| f.class == FaultClass::Cancelled);
    if !has_gone || over.fault.is_none() {
        over.fault = told.fault;
    }
    over
}

/// Sees to it that the owner's log says why the call failed. The sandbox has said it of the faults
/// it has seen.
pub(crate) fn log_fault(outcome: &mut Outcome) {
    let Some(fault) = &outcome.fault else { return };
    let summary = fault.to_string();
    let is_said = outcome.logs.iter().any(|line| {
        line.level == LogLevel::Error
            && (line.message.starts_with(&summary) || Some(&line.message) == fault.detail.as_ref())
    });
    if is_said {
        return;
    }
    let message = match &fault.detail {
        Some(detail) => format!("{summary}\n{detail}"),
        None => summary,
    };
    let timestamp_ms = u64::try_from(Timestamp::now().0).unwrap_or(0);
    outcome.logs.push(LogLine { level: LogLevel::Error, message, timestamp_ms });
}

impl Shared {
    /// Counts the text of a call towards both bounds. Says how much of it waits to be stored.
    fn take_logs(&self, allowance: &Allowance, began: Timestamp, outcome: &mut Outcome) -> usize {
        // What finds no room is not stored, and does not count towards what is.
        let bytes = self.admit_logs(outcome);
        if self.bound_logs(allowance, began, bytes, outcome) {
            return bytes;
        }
        self.log_bytes.fetch_sub(bytes, Relaxed);
        self.admit_logs(outcome)
    }

    /// Counts so much text of a call towards what its account may have stored in a day; if that is there
    /// already, the owner is told so instead, as long as what tells it is not too much as well. Whether it
    /// is to be stored.
    fn bound_logs(
        &self,
        allowance: &Allowance,
        began: Timestamp,
        bytes: usize,
        outcome: &mut Outcome,
    ) -> bool {
        let max_bytes = self.max_log_bytes_per_day;
        if max_bytes == 0 || bytes == 0 || allowance.admit_log(began, bytes as u64, max_bytes) {
            return true;
        }
        let message = format!(
            "the functions of this account have written {max_bytes} bytes of log on this day (UTC), and \
             no more is kept (log_bytes_per_user_per_day): what this call wrote is dropped"
        );
        let timestamp_ms = u64::try_from(Timestamp::now().0).unwrap_or(0);
        let notice = LogLine { level: LogLevel::Warn, message, timestamp_ms };
        let with_notices = max_bytes.saturating_add(max_bytes / 16).saturating_add(NOTICE_BYTES);
        let is_told = allowance.admit_log(began, notice.counted_bytes() as u64, with_notices);
        outcome.logs = if is_told { vec![notice] } else { Vec::new() };
        // Of a call that failed there is a row in any case.
        outcome.logs_truncated = is_told || outcome.fault.is_some();
        false
    }

    /// Counts the text of a call towards what may wait to be stored; drops it if there is no room.
    fn admit_logs(&self, outcome: &mut Outcome) -> usize {
        let bytes = outcome.logs.iter().map(LogLine::counted_bytes).sum();
        if bytes == 0 {
            return 0;
        }
        if self.log_bytes.fetch_add(bytes, Relaxed) + bytes <= self.max_log_bytes {
            return bytes;
        }
        self.log_bytes.fetch_sub(bytes, Relaxed);
        self.metrics.logs_dropped.fetch_add(1, Relaxed);
        outcome.logs = Vec::new();
        outcome.logs_truncated = true;
        0
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::ids::UserId;

    use super::*;

    #[test]
    fn a_fault_is_logged_once() {
        let fault = Fault::timeout(5).with_detail("at a.js:1");
        let said = |message: &str| LogLine {
            level: LogLevel::Error,
            message: message.to_owned(),
            timestamp_ms: 0,
        };
        for (before, lines) in [
            (vec![], 1),
            (vec![said("at a.js:1")], 1),
            (vec![said(&fault.to_string())], 1),
            (vec![said("something else")], 2),
        ] {
            let mut outcome = Outcome { logs: before, ..Outcome::not_started(fault.clone()) };
            log_fault(&mut outcome);
            log_fault(&mut outcome);
            assert_eq!(outcome.logs.len(), lines, "{:?}", outcome.logs);
        }
    }

    fn shared(max_log_bytes_per_day: u64) -> Shared {
        Shared {
            metrics: Arc::default(),
            log_bytes: AtomicUsize::new(0),
            max_log_bytes: 40,
            max_log_bytes_per_day,
            hang_up_wait: Duration::ZERO,
            deadline_grace: Duration::ZERO,
        }
    }

    #[test]
    fn it_is_told_so_often_at_most_that_no_more_is_kept() {
        let shared = shared(20);
        let allowance = Allowance::new(UserId::new(), Unread::default());
        let now = Timestamp::now();
        let call = || {
            let line = LogLine { level: LogLevel::Info, message: String::new(), timestamp_ms: 0 };
            let mut outcome = Outcome { logs: vec![line], ..Outcome::default() };
            let bytes = outcome.logs[0].counted_bytes();
            shared.bound_logs(&allowance, now, bytes, &mut outcome);
            outcome
        };
        // An empty line counts as 16 bytes.
        assert!((0..2).all(|_| call().logs[0].message.is_empty()));
        let notices: usize =
            (0..20_000).flat_map(|_| call().logs).map(|line| line.counted_bytes()).sum();
        assert!((900_000..1_100_000).contains(&notices), "{notices}");
        assert!(call().logs.is_empty() && !call().logs_truncated);
    }

    #[test]
    fn log_text_over_the_bound_is_dropped_and_counted() {
        let shared = shared(0);
        let outcome = |text: &str| Outcome {
            logs: vec![LogLine {
                level: LogLevel::Info,
                message: text.to_owned(),
                timestamp_ms: 0,
            }],
            ..Outcome::default()
        };
        let mut first = outcome(&"x".repeat(22));
        assert_eq!(shared.admit_logs(&mut first), 22);
        let mut second = outcome(&"x".repeat(19));
        assert_eq!(shared.admit_logs(&mut second), 0);
        assert!(second.logs.is_empty() && second.logs_truncated);
        assert_eq!(shared.admit_logs(&mut outcome(&"x".repeat(18))), 18);
        assert_eq!(shared.metrics.logs_dropped.load(Relaxed), 1);
        // A line is more than its text.
        shared.log_bytes.store(0, Relaxed);
        assert_eq!(shared.admit_logs(&mut outcome("")), 16);
        let mut empty = outcome("");
        empty.logs = vec![empty.logs.remove(0); 2];
        assert_eq!(shared.admit_logs(&mut empty), 0);
        assert!(empty.logs.is_empty() && empty.logs_truncated);
    }
}
