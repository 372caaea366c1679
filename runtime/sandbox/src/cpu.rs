//! CPU time that a worker uses and no call pays for.
//!
//! A call pays for what its worker uses while it runs. The rest is what a function left running,
//! which is to be little, however often the function is called; and what the platform does between
//! calls, which is not the function's to answer for: it writes answers, reads requests, looks for
//! the next call, compiles, and takes garbage away, the more the more the calls do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cloudserve_protocol::call::micros;

use crate::options::SandboxOptions;

/// What goes on beside the calls of a server (timers, connections that are kept) may take this
/// share of a core.
const SHARE_OF_AGE: u64 = 20;

/// Garbage of calls that is taken away after them, and answers that are written, take this share of
/// what the calls took.
const SHARE_OF_CALLS: u64 = 2;

/// What the platform does around a call that does nothing.
const AROUND_A_CALL_US: u64 = 200;

/// What it takes at most to compile a bundle for its code cache.
const CODE_CACHE_US: u64 = 1_000_000;

/// Bytes of an answer that are written in a microsecond, on a slow machine.
const BYTES_PER_US: u64 = 500;

/// No call takes longer. What a worker says of itself must not overflow a sum.
const LONGEST_CALL_US: u64 = 3_600_000_000;

/// See the module. Told by whoever looks at the process, and by its calls.
#[derive(Debug, Default)]
pub(crate) struct CpuTime {
    used_ms: AtomicU64,
    /// A worker that says more than it used has it in its function's usage.
    paid_us: AtomicU64,
    calls: AtomicU64,
    /// What the platform did besides what it does around each call.
    platform_us: AtomicU64,
    terms: OnceLock<Terms>,
}

/// What a worker may use, from when its function was loaded.
#[derive(Debug)]
pub(crate) struct Terms {
    since: Instant,
    /// What loading took is nobody's.
    used_ms: u64,
    free_us: u64,
    free_per_call_us: u64,
}

impl Terms {
    /// Of a worker that has just been loaded and has used so much.
    pub(crate) fn new(used_ms: u64, options: &SandboxOptions) -> Self {
        Self {
            since: Instant::now(),
            used_ms,
            free_us: u64::from(options.idle_cpu_ms) * 1_000,
            free_per_call_us: AROUND_A_CALL_US + u64::from(options.lone_call_watch_us),
        }
    }
}

impl CpuTime {
    /// From now on there is a bound.
    pub(crate) fn bound(&self, terms: Terms) {
        // Once in the life of a worker.
        let _ = self.terms.set(terms);
    }

    /// The process was looked at.
    pub(crate) fn note(&self, used_ms: u64) {
        self.used_ms.store(used_ms, Ordering::Relaxed);
    }

    /// What it had used when it was looked at last.
    pub(crate) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// The worker has made a code cache, after its call.
    pub(crate) fn made_code_cache(&self) {
        self.platform_us.fetch_add(CODE_CACHE_US, Ordering::Relaxed);
    }

    /// A call is over, which took so long and whose answer was so large.
    pub(crate) fn pay(&self, us: u64, answer_bytes: u64) {
        if answer_bytes > BYTES_PER_US {
            self.platform_us.fetch_add(answer_bytes / BYTES_PER_US, Ordering::Relaxed);
        }
        self.paid_us.fetch_add(us.min(LONGEST_CALL_US), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether more was used between calls than may be. Asked while there is no call, which pays
    /// when it is over.
    pub(crate) fn is_overdrawn(&self) -> bool {
        let Some(terms) = self.terms.get() else { return false };
        let paid_us = self.paid_us.load(Ordering::Relaxed);
        let used_us = self.used_ms().saturating_sub(terms.used_ms) * 1_000;
        let unpaid_us = used_us.saturating_sub(paid_us);
        // The clock need hardly ever be looked at.
        unpaid_us > terms.free_us && {
            let calls = self.calls.load(Ordering::Relaxed);
            let for_calls_us = calls * terms.free_per_call_us
                + paid_us / SHARE_OF_CALLS
                + self.platform_us.load(Ordering::Relaxed);
            let age = terms.since.elapsed();
            unpaid_us > terms.free_us + for_calls_us + micros(age) / SHARE_OF_AGE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Of a worker that was loaded so long ago, which took 70 ms; it may use a second.
    fn loaded(age: Duration) -> CpuTime {
        let cpu = CpuTime::default();
        let options = SandboxOptions {
            idle_cpu_ms: 1_000,
            lone_call_watch_us: 300,
            ..SandboxOptions::default()
        };
        let since = Instant::now().checked_sub(age).unwrap();
        cpu.bound(Terms { since, ..Terms::new(70, &options) });
        cpu
    }

    #[test]
    fn what_no_call_pays_for_is_bounded_however_often_there_is_one() {
        let cpu = loaded(Duration::ZERO);
        for n in 1..=10 {
            // A tenth of a second between calls of a millisecond.
            cpu.note(70 + n * 101);
            cpu.pay(1_000, 0);
            assert!(!cpu.is_overdrawn(), "{n}");
        }
        cpu.note(70 + 11 * 101);
        assert!(cpu.is_overdrawn());
        cpu.pay(100_000, 0);
        assert!(!cpu.is_overdrawn(), "the last look was in a call, which has paid since");
    }

    #[test]
    fn nothing_is_held_against_a_worker_that_is_not_loaded() {
        let cpu = CpuTime::default();
        cpu.note(60_000);
        assert!(!cpu.is_overdrawn());
    }

    #[test]
    fn the_platforms_own_part_is_free() {
        // Lone calls of 20 us, each looked for, for as long as a look takes, and read and written.
        let cpu = loaded(Duration::ZERO);
        for second in 1..=60 {
            (0..2_000).for_each(|_| cpu.pay(20, 0));
            cpu.note(70 + second * 2 * (20 + 300 + 150));
            assert!(!cpu.is_overdrawn(), "{second}");
        }
        // Garbage and answers of long ones.
        let cpu = loaded(Duration::ZERO);
        for second in 1..=60 {
            (0..10).for_each(|_| cpu.pay(80_000, 0));
            cpu.note(70 + second * 10 * (80 + 35));
            assert!(!cpu.is_overdrawn(), "{second}");
        }
        // Large answers that are at hand, and the code caches of a large bundle.
        let cpu = loaded(Duration::ZERO);
        (0..2).for_each(|_| cpu.made_code_cache());
        for second in 1..=60 {
            (0..100).for_each(|_| cpu.pay(1_000, 6 << 20));
            cpu.note(70 + 2_000 + second * 100 * (1 + 4));
            assert!(!cpu.is_overdrawn(), "{second}");
        }
    }

    #[test]
    fn a_little_may_go_on_for_good() {
        let cpu = loaded(Duration::from_secs(1_000));
        cpu.note(70 + 51_000);
        assert!(!cpu.is_overdrawn(), "a second, and a twentieth of its age");
        cpu.note(70 + 52_000);
        assert!(cpu.is_overdrawn());
    }

    #[test]
    fn what_a_worker_says_of_itself_overflows_nothing() {
        let cpu = loaded(Duration::ZERO);
        (0..3).for_each(|_| cpu.pay(u64::MAX, 0));
        cpu.note(5_000);
        assert!(!cpu.is_overdrawn());
    }
}
