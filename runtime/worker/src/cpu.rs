//! CPU time.

use std::time::{Duration, Instant};

/// A call that has not slept and took no longer counts with all of its time: to ask the kernel for the CPU
/// time of the process takes up to a microsecond, and whoever takes the core away keeps it for longer.
const SHORT_CALL: Duration = Duration::from_micros(100);

/// Calls that follow each other at once do so for no longer: the time that passes does not show what other
/// threads use, which the watchdog sees.
const UNASKED: Duration = Duration::from_millis(1);

/// CPU time of all threads of this process, in microseconds.
pub(crate) fn process_cpu_us() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread, in microseconds.
pub(crate) fn thread_cpu_us() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: these clocks exist on Linux and the pointer is valid.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// The CPU time of the process at a time.
#[derive(Clone, Copy)]
pub(crate) struct CpuTime {
    at: Instant,
    pub(crate) us: u64,
    /// When the kernel was asked for it last.
    asked: Instant,
}

impl CpuTime {
    pub(crate) fn ask(at: Instant) -> Self {
        Self { at, us: process_cpu_us(), asked: at }
    }

    /// What it is later, when the process has been at work since.
    pub(crate) fn later(self, at: Instant) -> Self {
        let awake = at.saturating_duration_since(self.at);
        if awake >= SHORT_CALL || at.saturating_duration_since(self.asked) >= UNASKED {
            return Self::ask(at);
        }
        Self { at, us: self.us + (u64::from(awake.subsec_nanos()) + 500) / 1_000, ..self }
    }
}
