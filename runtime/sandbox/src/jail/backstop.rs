//! Bounds on a worker that do not depend on anything the worker does: its resident memory, its
//! threads and the CPU time it has used, looked at from outside. The worker's own watchdog is faster
//! and fairer; a worker that has got rid of it ends here.

use std::fs;

/// Resident memory beyond the function's limit: the program itself, and what its own watchdog
/// allows.
const BEYOND_LIMIT_BYTES: u64 = 512 * MB;

const MB: u64 = 1024 * 1024;

/// A worker has some thirty threads at most.
const THREADS: u64 = 128;

/// Fields of `/proc/<pid>/stat` after the name: `utime` is the 14th of all, `stime` the 15th,
/// `num_threads` the 20th, `rss` the 24th.
const CPU_TICKS: [usize; 2] = [11, 12];
const NUM_THREADS: usize = 17;
const RESIDENT_PAGES: usize = 21;

/// What a worker holds, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    threads: u64,
    resident_bytes: u64,
    /// CPU time of all its threads, since it was started.
    pub(crate) cpu_ms: u64,
}

impl Holdings {
    /// `None` when the process is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&stat)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let constant = |name| {
            // SAFETY: a constant of the system.
            u64::try_from(unsafe { libc::sysconf(name) }).ok()
        };
        let ticks = number(CPU_TICKS[0])? + number(CPU_TICKS[1])?;
        Some(Self {
            threads: number(NUM_THREADS)?,
            resident_bytes: number(RESIDENT_PAGES)? * constant(libc::_SC_PAGESIZE)?,
            cpu_ms: ticks * 1_000 / constant(libc::_SC_CLK_TCK)?.max(1),
        })
    }

    /// Whether it is more than any worker of a function with this limit may hold.
    pub(crate) fn are_beyond_bounds(self, memory_mb: u32) -> bool {
        let most = u64::from(memory_mb) * MB + BEYOND_LIMIT_BYTES;
        self.threads > THREADS || self.resident_bytes > most
    }

    /// Whether resident memory is so far beyond the limit.
    pub(crate) fn exceed(self, memory_mb: u32, by_mb: u32) -> bool {
        self.resident_bytes > u64::from(memory_mb.saturating_add(by_mb)) * MB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let Holdings { threads, resident_bytes, cpu_ms } = Holdings::parse(&stat).unwrap();
        let in_dir = u64::try_from(fs::read_dir("/proc/self/task").unwrap().count()).unwrap();
        assert!(threads > 0 && threads.abs_diff(in_dir) < 16, "{threads} {in_dir}");
        assert!((1 << 20..1 << 32).contains(&resident_bytes), "{resident_bytes}");
        let holdings = Holdings::of(std::process::id()).unwrap();
        assert!(holdings.cpu_ms >= cpu_ms && cpu_ms < 3_600_000, "{cpu_ms}");
        assert!(!holdings.are_beyond_bounds(1_024));
        let big = Holdings { resident_bytes: 700 * MB, ..holdings };
        assert!(big.are_beyond_bounds(128) && big.exceed(128, 192) && !big.exceed(600, 192));
        assert!(Holdings { threads: 500, ..holdings }.are_beyond_bounds(1_024));
        assert_eq!(Holdings::of(u32::MAX), None);
    }
}
