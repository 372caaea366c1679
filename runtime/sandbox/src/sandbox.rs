//! The supervisor as the rest of the platform sees it, and what its parts share.

use std::collections::HashMap;
use std::future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cloudserve_artifacts::Cache;
use cloudserve_protocol::call::{
    Body, HandlerKind, Invocation, Invoker, LoadReport, Outcome, Reply, Target, VersionKey,
    VersionLoader, micros,
};
use cloudserve_protocol::egress::EgressPolicy;
use cloudserve_protocol::fault::Fault;
use cloudserve_protocol::ids::FunctionId;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};

use crate::asked::Asked;
use crate::attend::attend;
use crate::code_cache::CodeCaches;
use crate::cpu::Terms;
use crate::death::{DeathCause, ExitReport};
use crate::jail::{Holdings, Platform, policy};
use crate::launcher::Launcher;
use crate::metrics::{Counters, SandboxMetrics};
use crate::options::SandboxOptions;
use crate::room::Rooms;
use crate::state::{State, Todo};
use crate::worker::{Process, Worker};

/// How often idle workers are looked over.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long a drain waits for the next of the workers that it has killed. One that the kernel does not let go
/// of, as where a disk hangs, would keep this process as well.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Why a sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory for workers cannot be made or emptied.
    #[error("the sandbox's work directory {} cannot be prepared", path.display())]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A full jail is required.
    #[error(
        "this platform cannot give a full jail: no {0}; CLOUDSERVE_REQUIRE_JAIL=full refuses to \
         run without"
    )]
    Jail(String),
    /// The thread that starts workers cannot be made.
    #[error("no thread for starting workers")]
    Thread(#[source] io::Error),
}

/// Whether the sandbox can take calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Workers can be started, and it is not shutting down.
    pub is_ready: bool,
    /// Why the last worker could not be started, if it could not.
    pub last_failure: Option<String>,
    /// What the platform gives for the jail of a worker.
    pub jail: Platform,
}

/// Runs functions in worker processes. A cheap handle; the workers end with the last one.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

/// What the parts of the sandbox share.
pub(crate) struct Shared {
    pub(crate) options: SandboxOptions,
    pub(crate) cache: Arc<Cache>,
    pub(crate) code_caches: CodeCaches,
    pub(crate) runtime: Handle,
    pub(crate) counters: Counters,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) jail: Platform,
    pub(crate) egress: Arc<EgressPolicy>,
    launcher: Launcher,
    state: Mutex<State>,
    processes: Mutex<HashMap<u64, Arc<Process>>>,
    /// A process is gone.
    buried: Notify,
    next_worker: AtomicU64,
    this: Weak<Shared>,
}

impl Sandbox {
    /// Starts the supervisor and begins to fill its pool. Within a tokio runtime, which has to
    /// outlive it.
    pub fn start(options: SandboxOptions, cache: Arc<Cache>) -> Result<Self, StartError> {
        let jail = Platform::find_out();
        let missing = jail.missing().join(", no ");
        if missing.is_empty() {
            info!("workers are fully jailed");
        } else if options.require_full_jail {
            return Err(StartError::Jail(missing));
        } else {
            warn!("the jail of workers is not full: this platform has no {missing}");
        }
        if !jail.control_groups {
            info!("no control groups are delegated: the memory of workers is watched instead");
        }
        let work_dir = prepare(&options.work_dir)
            .map_err(|source| StartError::WorkDir { path: options.work_dir.clone(), source })?;
        let options = SandboxOptions { work_dir, ..options };
        let launcher = Launcher::start(&options).map_err(StartError::Thread)?;
        let shared = Arc::new_cyclic(|this| Shared {
            state: Mutex::new(State::new(&options)),
            processes: Mutex::default(),
            code_caches: CodeCaches::start(cache.clone()),
            runtime: Handle::current(),
            counters: Counters::default(),
            rooms: Arc::new(Rooms::new(options.whole_answer_bytes)),
            jail,
            egress: Arc::new(policy(options.egress_allow.clone())),
            buried: Notify::new(),
            next_worker: AtomicU64::new(1),
            this: this.clone(),
            launcher,
            options,
            cache,
        });
        info!(
            pool_size = shared.options.pool_size,
            max_workers = shared.options.max_workers,
            program = %shared.options.worker_program.display(),
            "sandbox starts"
        );
        shared.with_state(State::refill);
        tokio::spawn(keep_house(Arc::downgrade(&shared)));
        Ok(Self(shared))
    }

    /// Takes no new calls, lets those that run finish until `deadline`, then ends everything.
    /// Returns when all workers are gone, or the kernel keeps them for too long.
    pub async fn drain(&self, deadline: Instant) {
        let shared = &self.0;
        shared.with_state(|state, _| state.drain());
        let mut is_final = false;
        loop {
            let gone = shared.buried.notified();
            let census = shared.with_state(|state, _| state.census());
            if census.processes == 0 {
                return;
            }
            let until = if is_final { Instant::now() + GONE_WITHIN } else { deadline };
            if tokio::time::timeout_at(until.into(), gone).await.is_ok() {
                continue;
            }
            if is_final {
                warn!(workers = census.processes, "workers that were killed are not gone");
                return;
            }
            info!(workers = census.processes, "ending calls that did not finish in time");
            shared.end_all();
            is_final = true;
        }
    }

    /// Whether it can take calls.
    pub fn readiness(&self) -> Readiness {
        self.0.with_state(|state, _| {
            let failure = state.pool_mut().last_failure();
            Readiness {
                is_ready: !state.is_draining() && state.pool_mut().can_start(),
                last_failure: failure.map(|reason| reason.to_string()),
                jail: self.0.jail,
            }
        })
    }

    /// The figures of this moment.
    pub fn metrics(&self) -> SandboxMetrics {
        self.0.counters.snapshot(self.0.with_state(|state, _| state.census()))
    }
}

impl Invoker for Sandbox {
    /// What `async_trait` makes of an `async fn` would take the invocation along, in a future around
    /// that of the call.
    fn invoke<'life0, 'async_trait>(
        &'life0 self,
        call: Invocation,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, Box<Outcome>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Counters::count(&self.0.counters.calls);
        let limit = call.target.limits.request_body_bytes;
        if matches!(&call.body, Body::Full(bytes) if bytes.len() as u64 > limit) {
            let outcome = Outcome::not_started(Fault::payload_too_large(limit));
            return Box::pin(future::ready(Err(Box::new(outcome))));
        }
        Box::pin(self.0.call(Box::new(Asked::new(call))))
    }
}

#[async_trait]
impl VersionLoader for Sandbox {
    async fn load(&self, target: Arc<Target>) -> Result<LoadReport, Fault> {
        let (done, loaded) = oneshot::channel();
        let ordered = self.0.with_state(|state, _| state.order_boot(&target));
        if !ordered {
            return Err(Fault::shutting_down());
        }
        self.0.spawn_boot(target, Some(done));
        // The task reports in every case but a panic of its own.
        loaded.await.unwrap_or_else(|_| Err(Fault::shutting_down()))
    }

    fn retire_below(&self, function_id: FunctionId, version: u32) {
        self.0.with_state(|state, _| state.retire_below(function_id, version));
    }
}

impl Shared {
    /// Changes the state, then does what follows from it.
    pub(crate) fn with_state<T>(&self, change: impl FnOnce(&mut State, &mut Todo) -> T) -> T {
        let mut todo = Todo::default();
        let result = change(&mut self.state.lock(), &mut todo);
        if !todo.is_empty() {
            self.carry_out(todo);
        }
        result
    }

    #[cold]
    fn carry_out(&self, todo: Todo) {
        let Some(this) = self.this.upgrade() else { return };
        for target in todo.boots {
            this.spawn_boot(target, None);
        }
        for (key, pause) in todo.later {
            self.change_in(pause, move |state, todo| state.look_again(key, todo));
        }
        if let Some(pause) = todo.refill_in {
            self.change_in(pause, State::refill);
        }
        for _ in 0..todo.starts {
            let ordered = self.launcher.order();
            self.runtime.spawn(this.clone().start_worker(ordered));
        }
        if todo.ticks {
            self.runtime.spawn(tick(self.this.clone(), self.options.lane_tick()));
        }
    }

    /// Changes the state when so much time has passed.
    pub(crate) fn change_in(
        &self,
        pause: Duration,
        change: impl FnOnce(&mut State, &mut Todo) + Send + 'static,
    ) {
        let weak = self.this.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(shared) = weak.upgrade() {
                shared.with_state(change);
            }
        });
    }

    /// Boots a worker of this version for the calls that wait for it, or for `told`.
    fn spawn_boot(
        self: &Arc<Self>,
        target: Arc<Target>,
        told: Option<oneshot::Sender<Result<LoadReport, Fault>>>,
    ) {
        let boot = Boot { shared: self.clone(), key: target.key(), is_over: false };
        self.runtime.spawn(boot.run(target, told));
    }

    /// Looks after a worker that waits and has something to say.
    pub(crate) fn attend(&self, process: &Process) {
        self.with_state(|state, _| {
            let key = process.key.get().copied();
            state.with_waiting(process.id, key, |worker| attend(worker).is_alive());
        });
    }

    /// Takes a new process into the books.
    pub(crate) fn register(&self, process: &Arc<Process>) {
        self.processes.lock().insert(process.id, process.clone());
    }

    /// Ends workers that have outgrown what their own watchdog should not have let them have, and
    /// marks those that are to go when they have no call.
    fn look_at_holdings(&self) {
        let processes: Vec<_> = self.processes.lock().values().cloned().collect();
        for process in processes {
            let Some(memory_mb) = process.memory_mb.get().copied() else { continue };
            let Some(holdings) = Holdings::of(process.pid) else { continue };
            process.cpu.note(holdings.cpu_ms);
            if holdings.are_beyond_bounds(memory_mb) {
                warn!(worker = process.id, pid = process.pid, "worker is beyond all bounds");
                process.kill(DeathCause::MemoryLimit);
            } else if holdings.exceed(memory_mb, self.options.recycle_beyond_mb) {
                process.wear_out();
            }
        }
    }

    /// A worker has loaded its function: what it uses without a call is bounded from now on.
    fn bound_cpu(&self, process: &Process) {
        if let Some(holdings) = Holdings::of(process.pid) {
            process.cpu.bound(Terms::new(holdings.cpu_ms, &self.options));
        }
    }

    fn end_all(&self) {
        self.processes.lock().values().for_each(|process| process.kill(DeathCause::Drained));
    }

    /// Forgets a process that is gone, which its exit says already.
    pub(crate) fn bury(&self, process: &Process, report: &ExitReport) {
        self.rooms.gone(process.id);
        self.counters.count_death(report.cause);
        self.processes.lock().remove(&process.id);
        self.with_state(|state, todo| {
            state.buried(process.id, process.key.get().copied(), todo);
        });
        self.buried.notify_waiters();
    }

    /// See [`Shared::bury`]; for a process that has never come to be.
    pub(crate) fn forget(&self) {
        self.with_state(State::forget_process);
        self.buried.notify_waiters();
    }

    pub(crate) fn this(&self) -> Weak<Self> {
        self.this.clone()
    }

    pub(crate) fn next_worker_id(&self) -> u64 {
        self.next_worker.fetch_add(1, Ordering::Relaxed)
    }
}

/// See [`State::take_back`].
async fn tick(shared: Weak<Shared>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.with_state(State::take_back) {
            return;
        }
    }
}

/// A boot that is under way. The state hears of its end in every case.
struct Boot {
    shared: Arc<Shared>,
    key: VersionKey,
    is_over: bool,
}

impl Boot {
    async fn run(
        mut self,
        target: Arc<Target>,
        told: Option<oneshot::Sender<Result<LoadReport, Fault>>>,
    ) {
        let shared = self.shared.clone();
        let is_wanted =
            || told.is_some() || shared.with_state(|state, _| state.is_wanted(self.key));
        let booted = shared.boot(&target, is_wanted).await;
        self.is_over = true;
        match booted {
            Ok(Some(mut worker)) => {
                Counters::count(&shared.counters.cold_starts);
                if let Some(told) = told {
                    // Nobody need wait for it still; the worker is warm all the same.
                    let _ = told.send(Ok(report(&mut worker)));
                }
                let process = worker.process.clone();
                shared.with_state(|state, todo| state.loaded(worker, todo));
                // Not before the call that waited has been sent to it, by a task that may have this thread:
                // the kernel takes some 50 us for this.
                tokio::task::yield_now().await;
                shared.bound_cpu(&process);
            }
            Ok(None) => shared.with_state(|state, todo| state.boot_failed(self.key, None, todo)),
            Err(failure) => {
                // Its words are the function's, and are for its owner.
                let code = failure.fault.class.code();
                debug!(function = %target.function_id, code, "boot failed");
                let failure = Arc::new(failure);
                // A failed trial is nobody's but its caller's.
                let for_queue = told.is_none().then_some(&failure);
                shared.with_state(|state, todo| state.boot_failed(self.key, for_queue, todo));
                if let Some(told) = told {
                    let _ = told.send(Err(failure.fault.clone()));
                }
            }
        }
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.with_state(|state, _| state.boot_lost(self.key));
        }
    }
}

fn report(worker: &mut Worker) -> LoadReport {
    let mut report = LoadReport { handler_kind: HandlerKind::Event, load_us: 0, logs: Vec::new() };
    if let Some(assigned) = &mut worker.assigned {
        report.handler_kind = assigned.handler.unwrap_or(report.handler_kind);
        let took = assigned.loaded_at.map(|at| at - assigned.begun_at).unwrap_or_default();
        report.load_us = micros(took);
        report.logs = assigned.load_log.take().map_or_else(Vec::new, |log| log.finish().0);
    }
    report
}

async fn keep_house(shared: Weak<Shared>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let looking = shared.clone();
        // The kernel takes some 50 us for each process, and calls are served here.
        let looked = tokio::task::spawn_blocking(move || looking.look_at_holdings());
        if looked.await.is_err_and(|error| error.is_cancelled()) {
            return;
        }
        let longest = Duration::from_millis(shared.options.idle_evict_ms.into());
        shared.with_state(|state, todo| {
            if let Some(horizon) = Instant::now().checked_sub(longest) {
                state.end_idle_since(horizon);
            }
            state.refill(todo);
        });
    }
}

/// Makes the directory, and removes what workers of an earlier process left in it.
fn prepare(work_dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(work_dir)?;
    for entry in std::fs::read_dir(work_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(WORKER_DIR_PREFIX) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    work_dir.canonicalize()
}

/// Directories of workers in the work directory are named so.
pub(crate) const WORKER_DIR_PREFIX: &str = "worker-";
