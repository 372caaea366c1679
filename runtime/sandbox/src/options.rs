//! What the operator may set for the supervisor of workers. Every bound has its unit in its name.

use std::path::PathBuf;
use std::time::Duration;

use cloudserve_protocol::egress::EgressRule;
use cloudserve_protocol::limits::{Limits, PlatformLimits};

use crate::launcher::LaunchMode;
use crate::state::State;

/// Settings of a [`crate::Sandbox`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxOptions {
    /// The worker program, `cloudserve-worker`.
    pub worker_program: PathBuf,
    /// How worker processes come to be.
    pub launch: LaunchMode,
    /// Directory under which each worker gets its own temporary directory. Created when missing;
    /// what an earlier process left in it is removed.
    pub work_dir: PathBuf,
    /// Workers kept booted and waiting for a function. Each holds some 10 MB; one is used up by
    /// every cold start and takes some 50 ms of one core to replace, so this is the burst of new
    /// functions that starts without waiting for a process.
    pub pool_size: usize,
    /// Workers that may be booting at the same time. More than there are cores only makes each of
    /// them slower.
    pub parallel_starts: usize,
    /// Worker processes alive at the same time, the pool included. The least recently used idle
    /// one makes room for a function that has none.
    pub max_workers: usize,
    /// Time a worker process may take to boot.
    pub start_timeout_ms: u32,
    /// Longest pause between two attempts to start a worker after attempts have failed.
    pub start_backoff_max_ms: u32,
    /// Time a call waits for a warm worker of its function before another one is loaded for it.
    /// About what loading takes. A short call waits on while calls end and there is no core for
    /// another worker. One does not wait at all where calls often last twice as long as this and no other
    /// worker has to be ended for it.
    pub scale_after_ms: u32,
    /// Expected time for which a call may wait in a busy worker of its function, behind the calls
    /// in it, before it is given another one; in microseconds, 0 for not at all.
    pub worker_wait_us: u32,
    /// The same while there is an idle worker and a core for it: what waking one costs.
    pub worker_wake_us: u32,
    /// While calls come one at a time and take no more than half of this: time for which the answer is
    /// looked for instead of slept for, and then the next call by the worker; in microseconds, 0 for not
    /// at all. Being woken takes longer than many handlers do, and there is nothing else to do.
    pub lone_call_watch_us: u32,
    /// A worker that had no call for this long is ended.
    pub idle_evict_ms: u32,
    /// A worker that served this many calls is ended, so that leaks in user code stay bounded. Few
    /// workers serve a busy function, and what is compiled of it is lost with each of them.
    pub recycle_after_calls: u32,
    /// A worker that is this old is ended when it has no call, for the same reason.
    pub recycle_after_ms: u64,
    /// A worker whose resident memory is this far beyond its limit after a call is ended: what it
    /// holds is not what its function counts.
    pub recycle_beyond_mb: u32,
    /// What a worker may hold beyond its limit and its `/tmp` before the kernel ends it, where control
    /// groups are delegated: what the platform holds in it, and garbage that is not collected yet.
    pub kernel_memory_beyond_mb: u32,
    /// CPU time a worker may use while it has no call; one that uses more is ended. What goes on
    /// between calls belongs to none of them, and nobody's usage counts it. So much in one rest, and
    /// so much and a twentieth of its age over its life.
    pub idle_cpu_ms: u32,
    /// Time a worker has past a deadline to report the timeout itself before it is killed.
    pub kill_grace_ms: u32,
    /// Time a worker has to finish a call whose caller went away before it is killed.
    pub cancel_grace_ms: u32,
    /// Largest head (all header names and values) of an answer.
    pub response_head_bytes: usize,
    /// While more than this of an account's answers that come whole is in memory, without those of less than
    /// 1 MB, the next are left in the workers until some was sent on; 0: no bound.
    pub whole_answer_bytes: u64,
    /// Addresses outside the public internet that functions may connect to.
    pub egress_allow: Vec<EgressRule>,
    /// Whether to refuse to run on a platform that cannot give all of the jail.
    pub require_full_jail: bool,
    /// Bounds of the installation.
    pub platform: PlatformLimits,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            worker_program: PathBuf::from("cloudserve-worker"),
            launch: LaunchMode::default(),
            work_dir: PathBuf::from("work"),
            pool_size: 4,
            parallel_starts: cores,
            max_workers: workers_that_fit(memory_bytes()),
            start_timeout_ms: 10_000,
            start_backoff_max_ms: 5_000,
            scale_after_ms: 10,
            worker_wait_us: 1_000,
            worker_wake_us: 60,
            lone_call_watch_us: 300,
            idle_evict_ms: 300_000,
            recycle_after_calls: 10_000_000,
            recycle_after_ms: 6 * 60 * 60 * 1_000,
            recycle_beyond_mb: 192,
            kernel_memory_beyond_mb: 192,
            idle_cpu_ms: 1_000,
            kill_grace_ms: 250,
            cancel_grace_ms: 1_000,
            response_head_bytes: 64 * 1024,
            whole_answer_bytes: 256 * 1024 * 1024,
            egress_allow: Vec::new(),
            require_full_jail: false,
            platform: PlatformLimits::default(),
        }
    }
}

impl SandboxOptions {
    /// How often calls that wait in a worker are looked at.
    pub(crate) fn lane_tick(&self) -> Duration {
        let patience = Duration::from_millis(self.scale_after_ms.into());
        (patience / State::TICKS_OF_PATIENCE).max(Duration::from_millis(1))
    }

    pub(crate) fn lone_call_watch(&self) -> Duration {
        Duration::from_micros(self.lone_call_watch_us.into())
    }

    /// The most the kernel lets a worker of a function with these limits hold.
    pub(crate) fn kernel_memory_bytes(&self, limits: &Limits) -> u64 {
        let megabytes = u64::from(limits.memory_mb) + u64::from(self.kernel_memory_beyond_mb);
        megabytes * 1024 * 1024 + self.platform.tmp_bytes
    }
}

/// Bounds of the default of `max_workers`.
const WORKERS: std::ops::RangeInclusive<usize> = 16..=1_000;

/// What one worker is expected to hold. An idle one has 10 to 20 MB of its own; few are at their
/// limit at the same time.
const EXPECTED_WORKER_BYTES: u64 = 64 * 1024 * 1024;

/// Three quarters of the memory are for workers.
fn workers_that_fit(memory_bytes: u64) -> usize {
    let fit = memory_bytes / 4 * 3 / EXPECTED_WORKER_BYTES;
    usize::try_from(fit).unwrap_or(*WORKERS.end()).clamp(*WORKERS.start(), *WORKERS.end())
}

/// Memory of the machine, or of the cgroup when that is less.
fn memory_bytes() -> u64 {
    let machine = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
        .fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_follows_memory_within_bounds() {
        assert_eq!(workers_that_fit(0), 16);
        assert_eq!(workers_that_fit(8 << 30), 96);
        assert_eq!(workers_that_fit(u64::MAX), 1_000);
        assert!(memory_bytes() > 0);
    }
}
