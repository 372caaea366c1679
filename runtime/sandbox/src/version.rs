//! The workers of one version, and the calls that wait for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::Target;
use tokio::sync::oneshot;

use crate::lanes::Lanes;
use crate::state::{Grant, Refusal};
use crate::worker::Parked;

/// See the module.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) target: Arc<Target>,
    /// The one used last is at the end.
    pub(crate) idle: Parked,
    pub(crate) lanes: Lanes,
    pub(crate) loading: usize,
    pub(crate) generation: u32,
    queue: VecDeque<Waiter>,
    impatient: usize,
    failures: Failures,
}

/// A version whose workers die in a row is started again less and less often: a worker that lives
/// for one call takes a core from everybody else.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last_at: Option<Instant>,
    not_before: Option<Instant>,
    is_awaited: bool,
}

/// So many in a row are accidents.
const ACCIDENTS: u32 = 10;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A version that is not called is remembered for so long after a failure.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What became of a call that insists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insisted {
    /// It does not wait any more.
    Gone,
    /// It waits on: its turn comes sooner than another worker helps. It is to insist again soon.
    Waits,
    /// Another worker is worth it.
    IsImpatient,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    grant: oneshot::Sender<Grant>,
    is_impatient: bool,
    /// It may wait in a worker as well.
    is_small: bool,
    /// How many calls had come to their end when it was last looked at.
    ended: u64,
}

impl Version {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            idle: Parked::new(),
            lanes: Lanes::default(),
            loading: 0,
            generation: 0,
            queue: VecDeque::new(),
            impatient: 0,
            failures: Failures::default(),
        }
    }

    /// A worker of it died of what it did.
    pub(crate) fn failed(&mut self) {
        let failures = &mut self.failures;
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.last_at = Some(Instant::now());
        if let Some(beyond) = failures.in_a_row.checked_sub(ACCIDENTS) {
            let pause = FIRST_PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PAUSE);
            failures.not_before = Some(Instant::now() + pause);
        }
    }

    /// A call in a worker of it went well.
    pub(crate) fn succeeded(&mut self) {
        if self.failures.in_a_row > 0 {
            self.failures = Failures::default();
        }
    }

    /// How long no worker of it is started.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let left = self.failures.not_before?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether nobody waits for the end of the pause yet. From now on somebody does.
    pub(crate) fn await_pause(&mut self) -> bool {
        !std::mem::replace(&mut self.failures.is_awaited, true)
    }

    /// The pause is over, or another one has begun.
    pub(crate) fn pause_over(&mut self) {
        self.failures.is_awaited = false;
    }

    /// Workers it has or is about to have.
    pub(crate) fn workers(&self) -> usize {
        self.idle.len() + self.lanes.len() + self.loading
    }

    /// Calls that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is nothing to remember of it.
    pub(crate) fn is_unused(&self) -> bool {
        let is_remembered = self.failures.last_at.is_some_and(|at| at.elapsed() < REMEMBERED);
        self.workers() == 0 && self.queue.is_empty() && !is_remembered
    }

    /// Boots the calls that wait are worth, those under way included. As many as get the impatient
    /// ones done within so much time, if they are as short as others were: after a pause of a busy
    /// worker, a crowd would else have a worker loaded for each. If they are not, as many as there
    /// are busy workers, which soon doubles them.
    pub(crate) fn boots_wanted(&self, patience: Duration) -> usize {
        let is_cold = self.workers() == 0 && !self.queue.is_empty();
        let impatient = self.impatient;
        let worth = self.lanes.time_of(impatient).map_or(impatient, |time| {
            let workers = time.as_micros().div_ceil(patience.as_micros().max(1));
            usize::try_from(workers)
                .unwrap_or(impatient)
                .max(self.lanes.len())
                .clamp(impatient.min(1), impatient)
        });
        worth.max(usize::from(is_cold))
    }

    /// Whether nobody who waits has come before the call with this ticket.
    pub(crate) fn is_first(&self, ticket: u64) -> bool {
        self.queue.front().is_none_or(|first| ticket < first.ticket)
    }

    /// A call waits from now on, before all that came after it. When it first had to, so many calls had
    /// `ended`.
    pub(crate) fn join_queue(
        &mut self,
        ticket: u64,
        is_small: bool,
        ended: u64,
    ) -> oneshot::Receiver<Grant> {
        let (grant, granted) = oneshot::channel();
        let at = self.place_of(ticket);
        self.queue.insert(at, Waiter { ticket, grant, is_impatient: false, is_small, ended });
        granted
    }

    /// Where a call with this ticket waits, or would.
    fn place_of(&self, ticket: u64) -> usize {
        self.queue.partition_point(|waiter| waiter.ticket < ticket)
    }

    /// A call does not wait any more.
    pub(crate) fn leave_queue(&mut self, ticket: u64) {
        let at = self.place_of(ticket);
        if self.queue.get(at).is_some_and(|waiter| waiter.ticket == ticket) {
            let left = self.queue.remove(at);
            self.impatient -= usize::from(left.is_some_and(|waiter| waiter.is_impatient));
        }
    }

    /// A call has waited long enough and is impatient from now on, if it still waits. Not in a
    /// `crowd`, where calls are short and other workers would only take the cores from those that are
    /// awake, as long as calls come to their end: those are as short as is said, and this one's turn
    /// comes.
    pub(crate) fn insist(&mut self, ticket: u64, crowd: bool) -> Insisted {
        let at = self.place_of(ticket);
        let ended = self.lanes.ended();
        let waiter = self.queue.get_mut(at).filter(|waiter| waiter.ticket == ticket);
        let Some(waiter) = waiter else { return Insisted::Gone };
        let goes_on = std::mem::replace(&mut waiter.ended, ended) != ended;
        if crowd && goes_on && waiter.is_small && !waiter.is_impatient {
            return Insisted::Waits;
        }
        self.impatient += usize::from(!waiter.is_impatient);
        waiter.is_impatient = true;
        Insisted::IsImpatient
    }

    /// The impatient call that has waited longest is patient again: no other worker is loaded for
    /// it.
    pub(crate) fn calm(&mut self) {
        if let Some(waiter) = self.queue.iter_mut().find(|waiter| waiter.is_impatient) {
            waiter.is_impatient = false;
            self.impatient -= 1;
        }
    }

    /// Whether the call that has waited longest has done so for long enough, or cannot wait in a worker.
    pub(crate) fn is_pressed(&self) -> bool {
        self.queue.front().is_some_and(|first| first.is_impatient || !first.is_small)
    }

    /// Gives an idle worker to the call that has waited longest. Whether there were both.
    pub(crate) fn grant_next(&mut self) -> bool {
        while !self.queue.is_empty() {
            let Some(worker) = self.idle.pop() else { return false };
            let Some(waiter) = self.next_waiter() else { return false };
            self.lanes.open(&worker);
            // What comes back is not wanted: the call gave up a moment ago.
            match waiter.grant.send(Grant::Worker(worker)) {
                Err(Grant::Worker(worker)) => self.idle.extend(self.lanes.hand_over(worker)),
                _ => return true,
            }
        }
        false
    }

    /// Lets the call that has waited longest wait in a worker instead. Whether it was told so.
    pub(crate) fn grant_lane(&mut self, longest_us: u64) -> bool {
        if self.queue.front().is_some_and(|first| first.is_small)
            && self.lanes.room(longest_us).is_some()
            && let Some(waiter) = self.next_waiter()
        {
            // One that gave up leaves its place to the next when the next call ends.
            return waiter.grant.send(Grant::Again).is_ok();
        }
        false
    }

    /// Tells the call that has waited longest that it gets no worker. Whether there was one.
    pub(crate) fn refuse_next(&mut self, refusal: Refusal) -> bool {
        let mut refusal = Grant::Refused(refusal);
        while let Some(waiter) = self.next_waiter() {
            match waiter.grant.send(refusal) {
                Ok(()) => return true,
                Err(back) => refusal = back,
            }
        }
        false
    }

    fn next_waiter(&mut self) -> Option<Waiter> {
        let waiter = self.queue.pop_front()?;
        self.impatient -= usize::from(waiter.is_impatient);
        Some(waiter)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use cloudserve_protocol::call::Env;
    use cloudserve_protocol::ids::{BundleHash, FunctionId, UserId};
    use cloudserve_protocol::limits::Limits;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    pub(crate) fn target() -> Arc<Target> {
        Arc::new(Target {
            function_id: FunctionId::new(),
            owner_id: UserId::new(),
            owner_name: "owner".parse().unwrap(),
            function_name: "function".parse().unwrap(),
            version: 1,
            bundle_hash: BundleHash::of(b""),
            runtime_deps: None,
            limits: Limits::default(),
            env: Env::default(),
        })
    }

    fn version() -> Version {
        Version::new(target())
    }

    #[test]
    fn a_cold_version_wants_one_worker_and_then_one_for_each_impatient_call() {
        let mut version = version();
        assert_eq!(version.boots_wanted(PATIENCE), 0);
        let _waiting: Vec<_> = (1..=5).map(|ticket| version.join_queue(ticket, false, 0)).collect();
        assert_eq!(version.boots_wanted(PATIENCE), 1);
        version.loading = 1;
        assert_eq!(version.boots_wanted(PATIENCE), 0);
        for ticket in [1, 2, 2, 9] {
            let expected = if ticket == 9 { Insisted::Gone } else { Insisted::IsImpatient };
            assert_eq!(version.insist(ticket, true), expected, "{ticket}");
        }
        assert_eq!(version.boots_wanted(PATIENCE), 2);
        version.leave_queue(1);
        version.leave_queue(4);
        assert_eq!((version.boots_wanted(PATIENCE), version.queued()), (1, 3));
    }

    #[test]
    fn short_calls_are_worth_fewer_workers() {
        for (busy_us, boots) in [(20, 1), (600, 2), (4_000, 12), (50_000, 30)] {
            let mut version = version();
            (0..50).for_each(|_| version.lanes.note(busy_us));
            assert_eq!(version.boots_wanted(PATIENCE), 0);
            let _waiting: Vec<_> =
                (0..30).map(|ticket| version.join_queue(ticket, true, 0)).collect();
            (0..30).for_each(|ticket| {
                assert_eq!(version.insist(ticket, false), Insisted::IsImpatient);
            });
            assert_eq!(version.boots_wanted(PATIENCE), boots, "{busy_us} us");
        }
    }

    #[test]
    fn in_a_crowd_nobody_is_impatient_while_calls_come_to_their_end() {
        let mut version = version();
        let _waiting = [1, 2].map(|ticket| version.join_queue(ticket, ticket == 1, 0));
        version.lanes.note(20);
        assert_eq!(version.insist(1, true), Insisted::Waits);
        assert_eq!(version.insist(2, true), Insisted::IsImpatient, "it cannot wait in a worker");
        assert_eq!(version.insist(1, true), Insisted::IsImpatient, "none has ended since");
        version.lanes.note(20);
        assert_eq!(version.insist(1, true), Insisted::IsImpatient, "what is ordered stays so");
        version.leave_queue(3);
        version.leave_queue(1);
        assert_eq!((version.queued(), version.impatient), (1, 1));
    }

    #[test]
    fn a_crash_loop_pauses_longer_each_time_until_a_call_goes_well() {
        let mut version = version();
        (1..ACCIDENTS).for_each(|_| version.failed());
        assert_eq!(version.pause(), None, "accidents happen");
        version.failed();
        assert!(version.pause().is_some_and(|pause| pause <= FIRST_PAUSE));
        assert!(!version.is_unused(), "it is remembered");
        (0..40).for_each(|_| version.failed());
        let pause = version.pause().unwrap();
        assert!(pause > LONGEST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        assert!(version.await_pause() && !version.await_pause());
        version.succeeded();
        assert!(version.pause().is_none() && version.is_unused());
    }

    #[test]
    fn refusals_go_to_who_still_waits_in_order() {
        let mut version = version();
        let gone = version.join_queue(1, false, 0);
        let mut second = version.join_queue(2, false, 0);
        let mut third = version.join_queue(3, false, 0);
        version.insist(1, false);
        drop(gone);
        assert!(version.refuse_next(Refusal::Draining));
        assert!(matches!(second.try_recv(), Ok(Grant::Refused(Refusal::Draining))));
        assert!(third.try_recv().is_err());
        assert_eq!(version.boots_wanted(PATIENCE), 1, "it is cold");
        assert!(!version.grant_next());
        assert_eq!(version.queued(), 1);
    }
}
