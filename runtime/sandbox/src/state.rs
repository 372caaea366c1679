//! Who gets which worker: the pool of READY workers, the idle ones of each version, and the calls
//! that wait. A plain data structure behind one short lock; nothing here waits or does I/O other
//! than looking whether an idle worker's socket has something to say.
//!
//! Rules, in order. A call waits in a busy worker of its version, behind the calls in it, if they
//! are over sooner than another worker is awake ([`crate::lanes`]). Else it takes the idle worker
//! that was used last, unless calls are short and there is no core for it ([`crate::cores`]). Else it
//! waits in a busy worker if that is not for long, else in its version's queue. A boot is ordered
//! when the version has no worker at all, and for each call that has waited long enough to be
//! *impatient*, within the function's concurrency: a burst of short calls is through one warm worker
//! sooner than another one is loaded. Where calls last, and nobody's worker has to go for it, a call is
//! so at once. In a crowd of short calls that fills the cores nobody is, unless
//! it cannot wait in a worker, as long as calls come to their end: it is the cores that they wait
//! for. A call takes whatever comes first, a booted worker or one that another call is done with. A
//! boot takes a READY worker, else it stands in line for the next process. Processes are made to
//! refill the pool and to serve that line, in which accounts take turns; when there are as many as
//! there may be, the least recently used idle worker of the account that holds most makes room. A
//! version whose workers die one after the other is booted less and less often.
//!
//! Each version has a *generation*, raised when it is retired: a worker of an earlier one ends
//! when it has nothing to do. A gateway with an older view may still call a retired version; it is
//! then started again.

mod boots;
mod ending;
mod patience;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::{Target, VersionKey};
use cloudserve_protocol::ids::UserId;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::asked::Asked;
use crate::attend::attend;
use crate::boot::BootFailure;
use crate::cores::Cores;
use crate::death::DeathCause;
use crate::lanes::InLane;
use crate::options::SandboxOptions;
use crate::pool::{Order, Pool};
use crate::version::{Insisted, Version};
use crate::worker::Worker;

/// Calls in a row that have come one at a time, after which the next one will.
const LONE_CALLS: u32 = 16;

/// What must be done after the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Todo {
    /// Workers to boot for these versions.
    pub(crate) boots: Vec<Arc<Target>>,
    /// Processes to start.
    pub(crate) starts: usize,
    /// The pool is to be refilled when so much time has passed.
    pub(crate) refill_in: Option<Duration>,
    /// Versions to look at again when so much time has passed.
    pub(crate) later: Vec<(VersionKey, Duration)>,
    /// Calls wait in workers from now on, for which [`State::take_back`] is to be called every
    /// tick until it says that there are none.
    pub(crate) ticks: bool,
}

impl Todo {
    /// Whether there is nothing to do, as after nearly every call.
    pub(crate) fn is_empty(&self) -> bool {
        self.boots.is_empty()
            && self.starts == 0
            && self.refill_in.is_none()
            && self.later.is_empty()
            && !self.ticks
    }
}

/// Why a call does not get a worker.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// The version's queue is full, or too slow.
    Busy,
    /// The call's time is over and its worker still loads.
    StillLoading,
    /// The sandbox shuts down.
    Draining,
    /// The version could not be loaded.
    Boot(Arc<BootFailure>),
}

/// What a waiting call gets.
#[derive(Debug)]
pub(crate) enum Grant {
    /// This worker.
    Worker(Box<Worker>),
    /// Nothing here: it is to ask again.
    Again,
    /// Nothing yet: it was taken back from the worker it waited in, where a call takes longer than
    /// was expected.
    TooLong,
    /// The worker it waited in is gone, and may have begun it.
    Lost,
    /// No worker at all.
    Refused(Refusal),
}

/// Where a call stands that asks for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Behind those that wait.
    Comes,
    /// It has waited.
    HasCome,
    /// It has waited in a worker for longer than it should have.
    Insists,
}

/// The answer to a call that wants a worker.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It has one.
    Worker(Box<Worker>),
    /// It waits in a worker.
    Behind(InLane),
    /// It has to wait.
    Wait { ticket: u64, granted: oneshot::Receiver<Grant> },
    /// It gets none.
    Refused(Refusal),
}

#[derive(Debug, Default)]
struct User {
    calls: usize,
    /// Versions with calls that wait only because of the user's bound.
    held_up: VecDeque<VersionKey>,
}

/// Workers and calls at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) starting: usize,
    pub(crate) ready: usize,
    pub(crate) loading: usize,
    pub(crate) idle: usize,
    pub(crate) busy: usize,
    pub(crate) processes: usize,
    pub(crate) queued: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    queue_length: usize,
    user_concurrency: usize,
    recycle_after_calls: u32,
    recycle_after: Duration,
    wake_us: u64,
    lane_wait_us: u64,
    /// Time that a call waits before another worker is loaded for it.
    patience: Duration,
    /// What a lone call may take to be worth being looked for.
    no_time: Duration,
    cores: Cores,
    /// Workers that are in a call.
    busy: usize,
    /// Calls in a row that found no other one under way.
    lone_calls: u32,
    idle_cpu_ms: u64,
    pool: Pool,
    // Looked up several times for each call. A hash that resists whoever chooses the keys is of no
    // use: ids are ours, and come here only when they were found in storage.
    versions: FxHashMap<VersionKey, Version>,
    users: FxHashMap<UserId, User>,
    next_ticket: u64,
    /// Counts while calls wait in workers.
    tick: u64,
    is_ticking: bool,
    is_draining: bool,
}

impl State {
    pub(crate) fn new(options: &SandboxOptions) -> Self {
        Self {
            queue_length: options.platform.queue_length as usize,
            user_concurrency: (options.platform.user_concurrency as usize).max(1),
            recycle_after_calls: options.recycle_after_calls.max(1),
            recycle_after: Duration::from_millis(options.recycle_after_ms),
            wake_us: options.worker_wake_us.into(),
            lane_wait_us: options.worker_wait_us.into(),
            patience: Duration::from_millis(options.scale_after_ms.into()),
            no_time: options.lone_call_watch() / 2,
            cores: Cores::new(Duration::from_micros(options.worker_wake_us.into())),
            busy: 0,
            lone_calls: 0,
            idle_cpu_ms: options.idle_cpu_ms.into(),
            pool: Pool::new(options),
            versions: FxHashMap::default(),
            users: FxHashMap::default(),
            next_ticket: 0,
            tick: 0,
            is_ticking: false,
            is_draining: false,
        }
    }

    /// A call wants a worker of this version.
    pub(crate) fn admit(&mut self, asked: &mut Asked, turn: Turn, todo: &mut Todo) -> Admission {
        if self.is_draining {
            return Admission::Refused(Refusal::Draining);
        }
        let target = &asked.target;
        let key = target.key();
        let user = self.users.entry(target.owner_id).or_default();
        let version = self.versions.entry(key).or_insert_with(|| Version::new(target.clone()));
        let may_wait = turn != Turn::Insists && asked.is_repeatable() && self.lane_wait_us > 0;
        let has_just_come = asked.ticket.is_none();
        let ticket = *asked.ticket.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        if user.calls < self.user_concurrency && (version.is_first(ticket) || turn == Turn::HasCome)
        {
            let is_worth_waking =
                !version.idle.is_empty() && self.cores.are_left(self.busy, &version.lanes);
            let longest_us = if is_worth_waking { self.wake_us } else { self.lane_wait_us };
            if may_wait && let Some(at) = version.lanes.room(longest_us.min(self.lane_wait_us)) {
                user.calls += 1;
                self.lone_calls = 0;
                todo.ticks = !std::mem::replace(&mut self.is_ticking, true);
                return Admission::Behind(version.lanes.join(at, asked, self.tick));
            }
            if !(may_wait && self.cores.are_taken(self.busy, &version.lanes))
                && let Some(worker) = version.idle.pop()
            {
                user.calls += 1;
                self.busy += 1;
                version.lanes.open(&worker);
                self.lone_calls =
                    if self.busy == 1 { self.lone_calls.saturating_add(1) } else { 0 };
                let is_short = version.lanes.time_of(1).is_some_and(|time| time <= self.no_time);
                if is_short && self.lone_calls >= LONE_CALLS {
                    asked.set_lone();
                }
                return Admission::Worker(worker);
            }
        }
        if has_just_come && version.queued() >= self.queue_length {
            return Admission::Refused(Refusal::Busy);
        }
        self.lone_calls = 0;
        let ended = *asked.ended.get_or_insert_with(|| version.lanes.ended());
        let granted = version.join_queue(ticket, may_wait, ended);
        // It would likely wait for that long in vain. No other worker is ended for who has not waited.
        if version.lanes.outlast(self.patience) && self.pool.has_room() {
            version.insist(ticket, false);
        }
        self.serve_queue(key, todo);
        Admission::Wait { ticket, granted }
    }

    /// Whether this account has as many calls as it may have at the same time.
    pub(crate) fn is_exhausted(&self, owner: UserId) -> bool {
        self.users.get(&owner).is_some_and(|user| user.calls >= self.user_concurrency)
    }

    /// A call does not wait any more.
    pub(crate) fn leave_queue(&mut self, key: VersionKey, ticket: u64) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.leave_queue(ticket);
        }
        self.tidy(key);
    }

    /// A call has waited long enough for a warm worker.
    pub(crate) fn insist(&mut self, key: VersionKey, ticket: u64, todo: &mut Todo) -> Insisted {
        let Some(version) = self.versions.get_mut(&key) else { return Insisted::Gone };
        let crowd = self.cores.are_taken(self.busy, &version.lanes);
        let insisted = version.insist(ticket, crowd);
        if insisted == Insisted::IsImpatient {
            self.serve_queue(key, todo);
        }
        insisted
    }

    /// The call that had this worker is over after `busy_us`, and the worker is as good as new. It
    /// answered at `now`, or a moment ago.
    pub(crate) fn give_back(
        &mut self,
        mut worker: Box<Worker>,
        busy_us: u32,
        now: Instant,
        todo: &mut Todo,
    ) {
        let Some(assigned) = &mut worker.assigned else { return };
        assigned.calls += 1;
        self.pass_on(worker, Some(busy_us), now, todo);
    }

    /// A worker was granted to a call that had given up.
    pub(crate) fn unused(&mut self, worker: Box<Worker>, todo: &mut Todo) {
        self.pass_on(worker, None, Instant::now(), todo);
    }

    /// A worker's call is over, if it had one after so long: the worker goes to the call that waits
    /// in it, else it is free, or ends when it has served long enough.
    fn pass_on(
        &mut self,
        worker: Box<Worker>,
        busy_us: Option<u32>,
        now: Instant,
        todo: &mut Todo,
    ) {
        let Some(assigned) = &worker.assigned else { return };
        let (key, owner) = (assigned.target.key(), assigned.target.owner_id);
        let has_served = assigned.calls >= self.recycle_after_calls
            || now - assigned.begun_at >= self.recycle_after;
        let worn =
            if has_served { Some(DeathCause::Recycled) } else { worker.process.reason_to_go() };
        let generation = assigned.generation;
        self.calls_over(owner, 1);
        let Some(version) = self.versions.get_mut(&key) else { return };
        if let Some(busy_us) = busy_us {
            version.succeeded();
            version.lanes.note(busy_us);
        }
        if worn.is_some() || generation != version.generation {
            version.lanes.close(Some(worker.process.id));
        }
        match version.lanes.hand_over(worker) {
            None if version.queued() > 0 => self.serve_next(owner, key, todo),
            None => {
                self.serve_held_up(owner, todo);
            }
            Some(worker) => {
                self.busy -= 1;
                if let Some(cause) = worn {
                    worker.end(cause);
                    self.serve_next(owner, key, todo);
                } else {
                    self.settle(worker, todo);
                }
            }
        }
        self.refill(todo);
    }

    /// The call that had a worker is over, and so is the worker; `by_itself` when its function is to
    /// blame.
    pub(crate) fn lost(&mut self, target: &Target, worker: u64, by_itself: bool, todo: &mut Todo) {
        let mut over = 1;
        if let Some(version) = self.versions.get_mut(&target.key()) {
            if by_itself {
                version.failed();
            }
            if let Some(waiting) = version.lanes.dissolve(worker) {
                self.busy -= 1;
                over += waiting;
            }
        }
        self.calls_over(target.owner_id, over);
        self.serve_next(target.owner_id, target.key(), todo);
        self.refill(todo);
    }

    fn calls_over(&mut self, owner: UserId, calls: usize) {
        if let Some(user) = self.users.get_mut(&owner) {
            user.calls -= calls;
        }
    }

    /// Gives the worker to the next call, or lets it wait.
    fn settle(&mut self, mut worker: Box<Worker>, todo: &mut Todo) {
        let Some(assigned) = &worker.assigned else { return };
        let (key, owner) = (assigned.target.key(), assigned.target.owner_id);
        let generation = assigned.generation;
        let Some(version) = self.versions.get_mut(&key) else { return };
        let is_wanted = version.queued() > 0;
        if self.is_draining {
            worker.end(DeathCause::Drained);
            self.tidy(key);
        } else if is_wanted {
            worker.rest();
            version.idle.push(worker);
            self.serve_next(owner, key, todo);
            self.watch_last(key);
            return;
        } else if generation != version.generation {
            worker.end(DeathCause::Redeployed);
            self.tidy(key);
        } else {
            worker.rest();
            version.idle.push(worker);
            self.watch_last(key);
        }
        self.serve_held_up(owner, todo);
    }

    /// Leaves the socket of the worker that went idle last to its keeper.
    fn watch_last(&mut self, key: VersionKey) {
        let Some(version) = self.versions.get_mut(&key) else { return };
        if let Some(mut worker) = version.idle.pop() {
            if attend(&mut worker).is_alive() {
                version.idle.push(worker);
            } else {
                self.tidy(key);
            }
        }
    }

    /// Serves the calls that wait for this version as far as there are workers, and orders boots
    /// for the rest as far as the bounds allow. Says how many calls were told to ask again, each of
    /// which will take one more place of its account.
    pub(crate) fn serve_queue(&mut self, key: VersionKey, todo: &mut Todo) -> usize {
        let Some(version) = self.versions.get_mut(&key) else { return 0 };
        let user = self.users.entry(version.target.owner_id).or_default();
        while user.calls < self.user_concurrency
            && (version.is_pressed() || !self.cores.are_taken(self.busy, &version.lanes))
            && version.grant_next()
        {
            user.calls += 1;
            self.busy += 1;
        }
        let has_place = user.calls < self.user_concurrency;
        let ask_again = usize::from(has_place && version.grant_lane(self.lane_wait_us));
        let free_calls = self.user_concurrency - user.calls.min(self.user_concurrency);
        if version.queued() > free_calls && !user.held_up.contains(&key) {
            user.held_up.push_back(key);
        }
        let wanted =
            version.boots_wanted(self.patience).min(free_calls).saturating_sub(version.loading);
        let allowed =
            (version.target.limits.concurrency as usize).saturating_sub(version.workers());
        if wanted > 0
            && let Some(pause) = version.pause()
        {
            if version.await_pause() {
                todo.later.push((key, pause));
            }
            return ask_again;
        }
        for _ in 0..wanted.min(allowed) {
            version.loading += 1;
            todo.boots.push(version.target.clone());
        }
        self.tidy(key);
        ask_again
    }

    /// A pause after failures may be over.
    pub(crate) fn look_again(&mut self, key: VersionKey, todo: &mut Todo) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.pause_over();
        }
        self.serve_queue(key, todo);
    }

    /// Serves the versions whose calls wait because of their account's bound, one after the other. Says
    /// how many of its places are promised.
    fn serve_held_up(&mut self, owner: UserId, todo: &mut Todo) -> usize {
        let mut promised = 0;
        let count = self.users.get(&owner).map_or(0, |user| user.held_up.len());
        for _ in 0..count {
            let Some(user) = self.users.get_mut(&owner) else { break };
            if user.calls + promised >= self.user_concurrency {
                break;
            }
            let Some(key) = user.held_up.pop_front() else { break };
            promised += self.serve_queue(key, todo);
        }
        promised
    }

    /// The same first, or a version that always has calls waiting would take each place of its
    /// account; then this version.
    fn serve_next(&mut self, owner: UserId, key: VersionKey, todo: &mut Todo) {
        let promised = self.serve_held_up(owner, todo);
        // A call that is woken and finds no place has been woken for nothing.
        let must_wait = self.users.get(&owner).is_some_and(|user| {
            user.calls + promised >= self.user_concurrency && user.held_up.contains(&key)
        });
        if !must_wait {
            self.serve_queue(key, todo);
        }
    }

    /// A call that was told to ask again does not: its place is the next one's.
    pub(crate) fn place_unused(&mut self, key: VersionKey, todo: &mut Todo) {
        let Some(version) = self.versions.get(&key) else { return };
        let owner = version.target.owner_id;
        self.serve_next(owner, key, todo);
    }

    /// The pool, for what concerns no version. [`State::refill`] comes after each change.
    pub(crate) fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Orders the processes the pool wants, and makes room for them.
    pub(crate) fn refill(&mut self, todo: &mut Todo) {
        loop {
            match self.pool.order() {
                Order::Start(0) => return,
                Order::Start(n) => todo.starts += n,
                Order::MakeRoom { somebody_waits } => {
                    if !self.end_least_recently_used(somebody_waits) {
                        return;
                    }
                    self.pool.room_comes();
                }
            }
        }
    }

    /// Runs `with` on a worker that waits; drops it from its place when `with` says it is no more.
    pub(crate) fn with_waiting(
        &mut self,
        id: u64,
        key: Option<VersionKey>,
        with: impl FnOnce(&mut Worker) -> bool,
    ) {
        let place = match key {
            Some(key) => match self.versions.get_mut(&key) {
                Some(version) => &mut version.idle,
                None => return,
            },
            None => self.pool.ready_mut(),
        };
        let at = place.iter().position(|worker| worker.process.id == id);
        if let Some(at) = at.filter(|at| !with(&mut place[*at])) {
            place.remove(at);
        }
        if let Some(key) = key {
            self.tidy(key);
        }
    }

    /// A process is gone. A worker of it that still waits goes with it.
    pub(crate) fn buried(&mut self, id: u64, key: Option<VersionKey>, todo: &mut Todo) {
        self.with_waiting(id, key, |_| false);
        self.forget_process(todo);
    }

    /// A process is gone, or has never come to be.
    pub(crate) fn forget_process(&mut self, todo: &mut Todo) {
        self.pool.forget_process();
        self.refill(todo);
    }

    /// No new calls; whoever waits is refused; what waits is ended.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.pool.close();
        for version in self.versions.values_mut() {
            version.idle.drain(..).for_each(|worker| worker.end(DeathCause::Drained));
            while version.refuse_next(Refusal::Draining) {}
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    pub(crate) fn census(&self) -> Census {
        let sum = |of: fn(&Version) -> usize| self.versions.values().map(of).sum();
        let [starting, ready, processes] = self.pool.census();
        Census {
            starting,
            ready,
            loading: sum(|v| v.loading),
            idle: sum(|v| v.idle.len()),
            busy: self.busy,
            processes,
            queued: sum(|v| v.queued() + v.lanes.waiting()),
        }
    }

    fn tidy(&mut self, key: VersionKey) {
        if self.versions.get(&key).is_some_and(Version::is_unused) {
            self.versions.remove(&key);
        }
    }
}
