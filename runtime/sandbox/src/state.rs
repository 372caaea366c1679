//! Who gets which worker: the pool of READY workers, the idle ones of each version, and the calls
//! that wait. A plain data structure behind one short lock; nothing here waits or does I/O other
//! than looking whether an idle worker's socket has something to say.
//!
//! Rules, in order. A call takes the idle worker of its version that was used last. Else it waits
//! in its version's queue. A boot is ordered when the version has no worker at all, and for each
//! call that has waited long enough to be *impatient*, within the function's concurrency: a burst
//! of short calls is through one warm worker sooner than another one is loaded. A call takes
//! whatever comes first, a booted worker or one that another call is done with. A boot takes a
//! READY worker, else it stands in line for the next process. Processes are made to refill the
//! pool and to serve that line, in which accounts take turns; when there are as many as there may
//! be, the least recently used idle worker of the account that holds most makes room. A version
//! whose workers die one after the other is booted less and less often.
//!
//! Each version has a *generation*, raised when it is retired: a worker of an earlier one ends
//! when it has nothing to do. A gateway with an older view may still call a retired version; it is
//! then started again.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::{Target, VersionKey};
use cloudserve_protocol::ids::{FunctionId, UserId};
use tokio::sync::oneshot;

use crate::attend::attend;
use crate::boot::BootFailure;
use crate::death::DeathCause;
use crate::options::SandboxOptions;
use crate::pool::{Order, Pool, Provided};
use crate::version::Version;
use crate::worker::Worker;

/// What must be done after the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Todo {
    /// Workers to boot for these versions.
    pub(crate) boots: Vec<Arc<Target>>,
    /// Processes to start.
    pub(crate) starts: usize,
    /// Versions to look at again when so much time has passed.
    pub(crate) later: Vec<(VersionKey, Duration)>,
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
pub(crate) type Granted = Result<Box<Worker>, Refusal>;

/// The answer to a call that wants a worker.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It has one.
    Worker(Box<Worker>),
    /// It has to wait.
    Wait { ticket: u64, granted: oneshot::Receiver<Granted> },
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

/// A worker that was used this recently is not ended to refill the pool, only for a call.
const RECENT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    queue_length: usize,
    user_concurrency: usize,
    recycle_after_calls: u32,
    recycle_after: Duration,
    pool: Pool,
    versions: HashMap<VersionKey, Version>,
    users: HashMap<UserId, User>,
    next_ticket: u64,
    is_draining: bool,
}

impl State {
    pub(crate) fn new(options: &SandboxOptions) -> Self {
        Self {
            queue_length: options.platform.queue_length as usize,
            user_concurrency: (options.platform.user_concurrency as usize).max(1),
            recycle_after_calls: options.recycle_after_calls.max(1),
            recycle_after: Duration::from_millis(options.recycle_after_ms),
            pool: Pool::new(options),
            versions: HashMap::new(),
            users: HashMap::new(),
            next_ticket: 0,
            is_draining: false,
        }
    }

    /// A call wants a worker of this version.
    pub(crate) fn admit(&mut self, target: &Arc<Target>, todo: &mut Todo) -> Admission {
        if self.is_draining {
            return Admission::Refused(Refusal::Draining);
        }
        let key = target.key();
        let user = self.users.entry(target.owner_id).or_default();
        let version = self.versions.entry(key).or_insert_with(|| Version::new(target.clone()));
        if user.calls < self.user_concurrency
            && version.queued() == 0
            && let Some(worker) = version.idle.pop()
        {
            user.calls += 1;
            version.busy += 1;
            return Admission::Worker(worker);
        }
        if version.queued() >= self.queue_length {
            return Admission::Refused(Refusal::Busy);
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let granted = version.join_queue(ticket);
        self.serve_queue(key, todo);
        Admission::Wait { ticket, granted }
    }

    /// A call does not wait any more.
    pub(crate) fn leave_queue(&mut self, key: VersionKey, ticket: u64) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.leave_queue(ticket);
        }
        self.tidy(key);
    }

    /// Whether a worker is on its way for the calls that wait for this version.
    pub(crate) fn is_loading(&self, key: VersionKey) -> bool {
        self.versions.get(&key).is_some_and(|version| version.loading > 0)
    }

    /// A call has waited long enough for a warm worker.
    pub(crate) fn insist(&mut self, key: VersionKey, ticket: u64, todo: &mut Todo) {
        if self.versions.get_mut(&key).is_some_and(|version| version.insist(ticket)) {
            self.serve_queue(key, todo);
        }
    }

    /// The call that had this worker is over, and the worker is as good as new.
    pub(crate) fn give_back(&mut self, mut worker: Box<Worker>, todo: &mut Todo) {
        let Some(assigned) = &mut worker.assigned else { return };
        assigned.calls += 1;
        if let Some(version) = self.versions.get_mut(&assigned.target.key()) {
            version.succeeded();
        }
        let is_worn = assigned.calls >= self.recycle_after_calls
            || assigned.begun_at.elapsed() >= self.recycle_after
            || worker.process.is_worn();
        let (key, owner) = (assigned.target.key(), assigned.target.owner_id);
        self.call_over(key, owner);
        if is_worn {
            worker.end(DeathCause::Recycled);
            self.serve_queue(key, todo);
        } else {
            self.settle(worker, todo);
        }
        self.serve_held_up(owner, todo);
        self.refill(todo);
    }

    /// A worker was granted to a call that had given up.
    pub(crate) fn unused(&mut self, worker: Box<Worker>, todo: &mut Todo) {
        let Some(assigned) = &worker.assigned else { return };
        let (key, owner) = (assigned.target.key(), assigned.target.owner_id);
        self.call_over(key, owner);
        self.settle(worker, todo);
        self.serve_held_up(owner, todo);
        self.refill(todo);
    }

    /// The call that had a worker is over, and so is the worker; `by_itself` when its function is to
    /// blame.
    pub(crate) fn lost(&mut self, target: &Target, by_itself: bool, todo: &mut Todo) {
        self.call_over(target.key(), target.owner_id);
        if by_itself && let Some(version) = self.versions.get_mut(&target.key()) {
            version.failed();
        }
        self.serve_queue(target.key(), todo);
        self.serve_held_up(target.owner_id, todo);
        self.refill(todo);
    }

    fn call_over(&mut self, key: VersionKey, owner: UserId) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.busy -= 1;
        }
        if let Some(user) = self.users.get_mut(&owner) {
            user.calls -= 1;
        }
    }

    /// A worker has loaded this version, which was ordered with [`State::order_boot`] or by
    /// [`State::admit`].
    pub(crate) fn loaded(&mut self, worker: Box<Worker>, todo: &mut Todo) {
        let Some(key) = worker.assigned.as_ref().map(|a| a.target.key()) else { return };
        if let Some(version) = self.versions.get_mut(&key) {
            version.loading -= 1;
        }
        self.settle(worker, todo);
        self.refill(todo);
    }

    /// Gives the worker to the next call, or lets it wait.
    fn settle(&mut self, mut worker: Box<Worker>, todo: &mut Todo) {
        let Some(assigned) = &mut worker.assigned else { return };
        let key = assigned.target.key();
        let Some(version) = self.versions.get_mut(&key) else { return };
        if self.is_draining {
            worker.end(DeathCause::Drained);
            self.tidy(key);
            return;
        }
        if assigned.generation != version.generation && version.queued() == 0 {
            worker.end(DeathCause::Redeployed);
            self.tidy(key);
            return;
        }
        assigned.idle_since = Instant::now();
        version.idle.push(worker);
        self.serve_queue(key, todo);
        self.watch_last(key);
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
    /// for the rest as far as the bounds allow.
    pub(crate) fn serve_queue(&mut self, key: VersionKey, todo: &mut Todo) {
        let Some(version) = self.versions.get_mut(&key) else { return };
        let user = self.users.entry(version.target.owner_id).or_default();
        while user.calls < self.user_concurrency && version.grant_next() {
            user.calls += 1;
        }
        let free_calls = self.user_concurrency - user.calls.min(self.user_concurrency);
        if version.queued() > free_calls && !user.held_up.contains(&key) {
            user.held_up.push_back(key);
        }
        let wanted = version.boots_wanted().min(free_calls).saturating_sub(version.loading);
        let allowed =
            (version.target.limits.concurrency as usize).saturating_sub(version.workers());
        if wanted > 0
            && let Some(pause) = version.pause()
        {
            if version.await_pause() {
                todo.later.push((key, pause));
            }
            return;
        }
        for _ in 0..wanted.min(allowed) {
            version.loading += 1;
            todo.boots.push(version.target.clone());
        }
        self.tidy(key);
    }

    /// A pause after failures may be over.
    pub(crate) fn look_again(&mut self, key: VersionKey, todo: &mut Todo) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.pause_over();
        }
        self.serve_queue(key, todo);
    }

    fn serve_held_up(&mut self, owner: UserId, todo: &mut Todo) {
        let Some(user) = self.users.get_mut(&owner) else { return };
        for _ in 0..user.held_up.len() {
            let Some(user) = self.users.get_mut(&owner) else { return };
            if user.calls >= self.user_concurrency {
                return;
            }
            let Some(key) = user.held_up.pop_front() else { return };
            self.serve_queue(key, todo);
        }
    }

    /// A boot of this version begins that no waiting call asked for. Refused while draining.
    #[must_use]
    pub(crate) fn order_boot(&mut self, target: &Arc<Target>) -> bool {
        if self.is_draining {
            return false;
        }
        let version =
            self.versions.entry(target.key()).or_insert_with(|| Version::new(target.clone()));
        version.loading += 1;
        true
    }

    /// The generation a worker that is being assigned belongs to.
    pub(crate) fn generation(&self, key: VersionKey) -> u32 {
        self.versions.get(&key).map_or(0, |version| version.generation)
    }

    /// Whether a call waits for this version.
    pub(crate) fn is_wanted(&self, key: VersionKey) -> bool {
        self.versions.get(&key).is_some_and(|version| version.queued() > 0)
    }

    /// A boot has ended without a worker. The call that has waited longest is told; when nothing
    /// else is under way, all are, since they would meet the same end one after the other.
    pub(crate) fn boot_failed(
        &mut self,
        key: VersionKey,
        failure: Option<&Arc<BootFailure>>,
        todo: &mut Todo,
    ) {
        let Some(version) = self.versions.get_mut(&key) else { return };
        version.loading -= 1;
        if let Some(failure) = failure {
            if failure.started {
                version.failed();
            }
            let is_last = version.workers() == 0;
            while version.refuse_next(Refusal::Boot(failure.clone())) && is_last {}
        }
        self.serve_queue(key, todo);
        self.refill(todo);
    }

    /// A READY worker, or a place in the line for the next.
    pub(crate) fn take_ready(
        &mut self,
        owner: UserId,
        todo: &mut Todo,
    ) -> Result<Box<Worker>, oneshot::Receiver<Provided>> {
        let taken = self.pool.take(owner);
        // A process that starts takes a core from the load that is about to begin; while there are
        // more READY workers, the refill waits for its end.
        if taken.is_err() || self.pool.ready_mut().is_empty() {
            self.refill(todo);
        }
        taken
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

    fn end_least_recently_used(&mut self, even_recent: bool) -> bool {
        let mut held: HashMap<UserId, usize> = HashMap::new();
        for version in self.versions.values() {
            *held.entry(version.target.owner_id).or_default() += version.workers();
        }
        let oldest = self
            .versions
            .iter()
            .filter_map(|(key, version)| {
                let idle_since = version.idle.first()?.idle_since()?;
                let is_free = even_recent || idle_since.elapsed() >= RECENT;
                is_free.then_some((held[&version.target.owner_id], idle_since, *key))
            })
            .min_by_key(|(held, idle_since, _)| (Reverse(*held), *idle_since));
        let Some((.., key)) = oldest else { return false };
        if let Some(version) = self.versions.get_mut(&key) {
            version.idle.remove(0).end(DeathCause::Idle);
        }
        self.tidy(key);
        true
    }

    /// Ends workers that have been idle since before `horizon`, and those that are worn.
    pub(crate) fn end_idle_since(&mut self, horizon: Instant) {
        for version in self.versions.values_mut() {
            let worn = version.idle.extract_if(.., |worker| worker.process.is_worn());
            worn.for_each(|worker| worker.end(DeathCause::Recycled));
            let n_old = version
                .idle
                .partition_point(|worker| worker.idle_since().is_some_and(|at| at <= horizon));
            version.idle.drain(..n_old).for_each(|worker| worker.end(DeathCause::Idle));
        }
        self.versions.retain(|_, version| !version.is_unused());
        self.users.retain(|_, user| user.calls > 0 || !user.held_up.is_empty());
    }

    /// Versions of this function below `version` are no longer wanted.
    pub(crate) fn retire_below(&mut self, function_id: FunctionId, below: u32) {
        for (key, version) in &mut self.versions {
            if key.function_id == function_id && key.version < below {
                version.generation += 1;
                version.idle.drain(..).for_each(|worker| worker.end(DeathCause::Redeployed));
            }
        }
        self.versions.retain(|_, version| !version.is_unused());
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
            busy: sum(|v| v.busy),
            processes,
            queued: sum(Version::queued),
        }
    }

    fn tidy(&mut self, key: VersionKey) {
        if self.versions.get(&key).is_some_and(Version::is_unused) {
            self.versions.remove(&key);
        }
    }
}
