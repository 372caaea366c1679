//! A READY worker becomes a function's: assignment, loading, and what can go wrong with it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloudserve_artifacts::VersionLease;
use cloudserve_protocol::call::{LogLine, Target};
use cloudserve_protocol::fault::{Chain, Fault, FaultClass};
use cloudserve_protocol::ids::UserId;
use cloudserve_protocol::wire::{
    Assignment, FromWorker, JailTerms, Jailed, Loaded, MAX_FRAME_BYTES, MAX_HEAD_BYTES, ToWorker,
};
use tracing::{debug, error, warn};

use crate::attend::{FRAMES_AT_ONCE, aside};
use crate::code_cache::called;
use crate::death::{DeathCause, ExitReport, as_claimed};
use crate::jail::{Watch, watch};
use crate::logs::LogBuffer;
use crate::sandbox::Shared;
use crate::worker::{Assigned, ChannelError, FrameLimits, Worker};

/// Code caches one worker may send: one early, one when more was compiled.
const CODE_CACHES: u8 = 2;

/// A line or a stack may be this long, however little the function may answer.
const TEXT_BYTES: usize = 1024 * 1024;

/// Time in which a worker that was killed is gone.
const GONE_SOON: Duration = Duration::from_millis(100);

/// What a frame holds besides an answer's head and body.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Why a version could not be loaded, and what it wrote.
#[derive(Debug)]
pub(crate) struct BootFailure {
    pub(crate) fault: Fault,
    pub(crate) log: Vec<LogLine>,
    pub(crate) log_is_cut: bool,
    /// Whether user code was entered.
    pub(crate) started: bool,
    /// Time since a worker was assigned.
    pub(crate) took: Duration,
}

impl BootFailure {
    fn not_started(message: &str) -> Self {
        Self {
            fault: Fault::new(FaultClass::SandboxUnavailable, message),
            log: Vec::new(),
            log_is_cut: false,
            started: false,
            took: Duration::ZERO,
        }
    }
}

impl Shared {
    /// A worker with this version loaded. `None` when `is_wanted` says, once there is a READY
    /// worker, that nobody needs it any more.
    pub(crate) async fn boot(
        self: &Arc<Self>,
        target: &Arc<Target>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Box<Worker>>, BootFailure> {
        let first = self.boot_once(target, &is_wanted).await;
        // Somebody killed the process. The function had no part in it, and gets another one.
        let was_killed = first.as_ref().is_err_and(|f| f.fault.class == FaultClass::Crashed);
        if was_killed { self.boot_once(target, &is_wanted).await } else { first }
    }

    async fn boot_once(
        self: &Arc<Self>,
        target: &Arc<Target>,
        is_wanted: &impl Fn() -> bool,
    ) -> Result<Option<Box<Worker>>, BootFailure> {
        // First: no READY worker is tied up while artifacts are fetched.
        let version = self.cache.version_dir(target).await.map_err(|error| {
            error!(
                function = %target.function_id,
                version = target.version,
                error = %Chain(&error),
                "artifacts are not available"
            );
            BootFailure::not_started("the function's code could not be fetched; try again")
        })?;
        let worker = self.ready_worker(target.owner_id).await.map_err(|reason| {
            error!(reason = &*reason, "no worker can be started");
            BootFailure::not_started("no worker can be started; try again")
        })?;
        if !is_wanted() {
            self.with_state(|state, _| state.pool_mut().put(worker));
            return Ok(None);
        }
        self.load_into(worker, target, version).await.map(Some)
    }

    async fn ready_worker(&self, owner: UserId) -> Result<Box<Worker>, Arc<str>> {
        match self.with_state(|state, todo| state.take_ready(owner, todo)) {
            Ok(worker) => Ok(worker),
            // The place is dropped when the sandbox shuts down.
            Err(turn) => turn.await.unwrap_or_else(|_| Err("the sandbox is shutting down".into())),
        }
    }

    async fn load_into(
        &self,
        mut worker: Box<Worker>,
        target: &Arc<Target>,
        version: VersionLease,
    ) -> Result<Box<Worker>, BootFailure> {
        let begun_at = Instant::now();
        let budget = Duration::from_millis(self.options.platform.load_ms.into());
        let assignment = match self.assign(&mut worker, target, version, begun_at) {
            Ok(assignment) => assignment,
            Err(failure) => {
                worker.end(DeathCause::LoadFailed);
                return Err(failure);
            }
        };
        worker.send(&ToWorker::Assign(Box::new(assignment)));
        let patience = budget + Duration::from_millis(self.options.kill_grace_ms.into());
        let ended = match tokio::time::timeout(patience, self.loaded(&mut worker)).await {
            Ok(Ok(loaded)) => {
                debug!(
                    worker = worker.process.id,
                    function = %target.function_id,
                    version = target.version,
                    load_us = loaded.load_us,
                    code_cache = loaded.code_cache_used,
                    "worker loaded its function"
                );
                settle_in(&mut worker, &loaded);
                return Ok(worker);
            }
            Ok(Err(ended)) => ended,
            Err(_elapsed) => {
                worker.process.kill(DeathCause::LoadFailed);
                Ended::Fault(Fault::new(
                    FaultClass::StartupError,
                    format!("the module did not finish loading within {} ms", budget.as_millis()),
                ))
            }
        };
        let fault = match ended {
            Ended::Fault(fault) => fault,
            Ended::Lost => {
                let report =
                    worker.process.exited(patience.saturating_sub(begun_at.elapsed())).await;
                died_loading(&report, target)
            }
        };
        let mut log = LogBuffer::new(target.limits.log_bytes);
        if let Some(lines) = worker.process.pipes.take_log(false) {
            log.merge(lines);
        }
        log.push_fault(&fault);
        worker.end(DeathCause::LoadFailed);
        let (log, log_is_cut) = log.finish();
        let started = fault.class != FaultClass::SandboxUnavailable;
        Err(BootFailure { fault, log, log_is_cut, started, took: begun_at.elapsed() })
    }

    fn assign(
        &self,
        worker: &mut Worker,
        target: &Arc<Target>,
        version: VersionLease,
        begun_at: Instant,
    ) -> Result<Assignment, BootFailure> {
        if let Some(group) = &worker.process.group {
            group.bound(self.options.kernel_memory_bytes(&target.limits)).map_err(|error| {
                error!(%error, "a worker's memory cannot be bounded");
                BootFailure::not_started("no worker can be assigned; try again")
            })?;
        }
        let kept = |tag: &str| self.cache.code_cache(target.function_id, &target.bundle_hash, tag);
        let code_cache = kept(&called(&worker.code_cache_tag));
        let early = if code_cache.is_none() { kept(&worker.code_cache_tag) } else { None };
        let code_cache_is_early = early.is_some();
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        // None is left of a process that has ended meanwhile.
        let tmp_path = worker.process.belongings.lock().as_ref().map(|held| text(held.tmp.path()));
        let assignment = Assignment {
            function_id: target.function_id,
            function_name: target.function_name.to_string(),
            owner_name: target.owner_name.to_string(),
            version: target.version,
            bundle_path: text(&version.bundle_path()),
            node_modules_path: version.node_modules_path().map(|path| text(&path)),
            tmp_path: tmp_path.unwrap_or_default(),
            code_cache_path: code_cache.or(early).as_deref().map(text),
            code_cache_is_early,
            limits: target.limits,
            load_budget_ms: self.options.platform.load_ms,
            lone_call_watch_us: self.options.lone_call_watch_us,
            env: target.env.clone(),
            jail: JailTerms {
                tmp_bytes: self.options.platform.tmp_bytes,
                require_full: self.options.require_full_jail,
                supervised_egress: self.jail.egress,
                egress_allow: self.options.egress_allow.clone(),
            },
        };
        let text_bytes = TEXT_BYTES.max(target.limits.log_bytes as usize);
        let answer_bytes = usize::try_from(target.limits.response_body_bytes)
            .unwrap_or(MAX_FRAME_BYTES)
            .max(text_bytes);
        let frame_bytes = |bytes: usize| {
            bytes.saturating_add(MAX_HEAD_BYTES + FRAME_OVERHEAD_BYTES).min(MAX_FRAME_BYTES)
        };
        let key = target.key();
        worker.assigned = Some(Assigned {
            target: target.clone(),
            generation: self.with_state(|state, _| state.generation(key)),
            begun_at,
            loaded_at: None,
            handler: None,
            load_log: None,
            calls: 0,
            idle_since: Instant::now(),
            at_rest: None,
            code_caches: (self.code_caches.clone(), CODE_CACHES),
            code_cache_is_early,
            rooms: self.rooms.clone(),
        });
        worker.frame_limits = FrameLimits {
            answer_bytes: frame_bytes(answer_bytes),
            text_bytes: text_bytes + FRAME_OVERHEAD_BYTES,
        };
        worker.process.pipes.set_limit(target.limits.log_bytes);
        let _ = worker.process.key.set(key);
        let _ = worker.process.memory_mb.set(target.limits.memory_mb);
        if let Some(held) = worker.process.belongings.lock().as_mut() {
            held.version = Some(version);
        }
        Ok(assignment)
    }
}

enum Ended {
    Fault(Fault),
    /// The worker is gone, or going.
    Lost,
}

impl Shared {
    /// Sends the assignment and waits for what becomes of it.
    async fn loaded(&self, worker: &mut Worker) -> Result<Loaded, Ended> {
        let mut is_jailed = false;
        let violation = loop {
            match next_frame(worker).await {
                Ok(FromWorker::Jailed(jailed)) if !is_jailed => {
                    is_jailed = true;
                    if let Err(error) = self.attend_to_network(worker, &jailed) {
                        // One that somebody has killed meanwhile is lost, and nobody to blame.
                        if worker.process.gone_within(GONE_SOON).await.is_some() {
                            return Err(Ended::Lost);
                        }
                        error!(worker = worker.process.id, %error, "a worker cannot be watched");
                        worker.process.kill(DeathCause::LoadFailed);
                        return Err(Ended::Fault(not_confined()));
                    }
                }
                Ok(FromWorker::Loaded(loaded)) => return Ok(loaded),
                // No user code has run: the worker speaks for the platform.
                Ok(FromWorker::LoadFailed(fault)) if !is_jailed => {
                    let detail = fault.detail.as_deref().unwrap_or_default();
                    error!(worker = worker.process.id, reason = %fault, detail, "not assigned");
                    return Err(Ended::Fault(not_confined()));
                }
                Ok(FromWorker::LoadFailed(fault)) => {
                    let mut fault = as_claimed(fault);
                    if fault.class != FaultClass::MemoryLimit {
                        fault.class = FaultClass::StartupError;
                    }
                    return Err(Ended::Fault(fault));
                }
                Ok(_) => {
                    break "a frame that is not expected while a function is loaded".to_owned();
                }
                Err(ChannelError::Closed | ChannelError::Io(_)) => return Err(Ended::Lost),
                Err(error) => break error.to_string(),
            }
        };
        warn!(worker = worker.process.id, violation, "worker broke the protocol");
        worker.process.kill(DeathCause::ProtocolViolation);
        Err(Ended::Lost)
    }

    /// Takes the listener of a worker's network calls over, and lets user code begin.
    fn attend_to_network(&self, worker: &mut Worker, jailed: &Jailed) -> io::Result<()> {
        let Some(number) = jailed.listener else { return Ok(()) };
        let listener = worker.process.take_descriptor(number)?;
        let process = worker.process.clone();
        let sandbox = self.this();
        watch(Watch { policy: self.egress.clone(), process, sandbox }, listener, &self.runtime)?;
        worker.send(&ToWorker::Watched);
        Ok(())
    }
}

fn not_confined() -> Fault {
    Fault::new(FaultClass::SandboxUnavailable, "no worker can be assigned; try again")
}

/// The next frame that is not said aside.
async fn next_frame(worker: &mut Worker) -> Result<FromWorker, ChannelError> {
    poll_fn(|cx| {
        for _ in 0..FRAMES_AT_ONCE {
            // A broken socket shows when it is read.
            let _ = worker.poll_flush(cx);
            return match worker.poll_frame_aside(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok((frame, _))) => match aside(worker, frame) {
                    None => continue,
                    Some(frame) => Poll::Ready(Ok(frame)),
                },
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            };
        }
        // It may never stop; others have their turn, and the clock.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn settle_in(worker: &mut Worker, loaded: &Loaded) {
    let log = worker.process.pipes.take_log(false);
    if let Some(assigned) = &mut worker.assigned {
        assigned.loaded_at = Some(Instant::now());
        assigned.handler = Some(loaded.handler_kind);
        assigned.load_log = log;
        // One that was given a cache makes none; but one after a call, if that had none of what calls compile.
        if loaded.code_cache_used {
            assigned.code_caches.1 = assigned.code_cache_is_early.into();
        }
    }
}

/// Of class `Crashed` only if the process was killed from outside.
fn died_loading(report: &ExitReport, target: &Target) -> Fault {
    let fault = report.fault(&target.limits);
    match fault.class {
        FaultClass::Crashed if report.cause != DeathCause::Crashed(libc::SIGKILL) => Fault {
            class: FaultClass::StartupError,
            message: format!("{} while the module was loaded", fault.message),
            ..fault
        },
        _ => fault,
    }
}
