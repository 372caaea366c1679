//! Failed logins and the time they cost.
//!
//! An attempt counts from the moment it begins and is taken back when it succeeds: attempts made
//! at once cannot all pass before the first has failed. Memory is bounded; what is forgotten first
//! is what was not asked for longest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Names or addresses that are remembered at most.
const MAX_KNOWN: u64 = 100_000;
/// Failures are forgotten after this long without another.
const MEMORY: Duration = Duration::from_hours(1);

/// Failures by name or address.
pub(crate) struct Attempts {
    free: u32,
    first_wait: Duration,
    longest_wait: Duration,
    known: Cache<[u8; 32], Arc<Mutex<Standing>>>,
}

struct Standing {
    failures: u32,
    not_before: Instant,
}

impl Attempts {
    /// `free` failures cost nothing; the next costs `first_wait`, each further one twice as much.
    pub(crate) fn new(free: u32, first_wait: Duration, longest_wait: Duration) -> Self {
        let known = Cache::builder().max_capacity(MAX_KNOWN).time_to_idle(MEMORY).build();
        Self { free: free.max(1), first_wait, longest_wait, known }
    }

    /// Begins an attempt, or says how long to wait.
    pub(crate) fn begin(&self, who: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let standing = self
            .known
            .get_with(key(who), || Arc::new(Mutex::new(Standing { failures: 0, not_before: now })));
        let mut standing = standing.lock();
        if let Some(wait) = standing.not_before.checked_duration_since(now).filter(|w| !w.is_zero())
        {
            return Err(wait);
        }
        standing.failures = standing.failures.saturating_add(1);
        if let Some(doublings) = standing.failures.checked_sub(self.free) {
            let wait = self.first_wait.saturating_mul(1 << doublings.min(20));
            standing.not_before = now + wait.min(self.longest_wait);
        }
        Ok(())
    }

    /// The attempt that began was no failure.
    pub(crate) fn take_back(&self, who: &str) {
        if let Some(standing) = self.known.get(&key(who)) {
            let mut standing = standing.lock();
            standing.failures = standing.failures.saturating_sub(1);
            standing.not_before = Instant::now();
        }
    }

    /// All failures so far are forgiven.
    pub(crate) fn forgive(&self, who: &str) {
        self.known.invalidate(&key(who));
    }
}

/// Names are of any length and not ours to keep.
fn key(who: &str) -> [u8; 32] {
    Sha256::digest(who.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cost_more_and_more_until_one_succeeds() {
        let attempts = Attempts::new(3, Duration::from_secs(60), Duration::from_secs(90));
        for _ in 0..3 {
            assert!(attempts.begin("a").is_ok());
        }
        let wait = attempts.begin("a").unwrap_err();
        assert!(wait > Duration::from_secs(59) && wait <= Duration::from_secs(60), "{wait:?}");
        assert!(attempts.begin("b").is_ok());

        attempts.take_back("a");
        assert!(attempts.begin("a").is_ok());
        assert!(attempts.begin("a").is_err());
        attempts.forgive("a");
        assert!(attempts.begin("a").is_ok());
    }

    #[test]
    fn waiting_times_double_up_to_a_bound() {
        let attempts = Attempts::new(1, Duration::from_secs(60), Duration::from_secs(240));
        for seconds in [60, 120, 240, 240] {
            let expected = Duration::from_secs(seconds);
            let before = Instant::now();
            attempts.begin("a").unwrap();
            let after = Instant::now();
            let standing = attempts.known.get(&key("a")).unwrap();
            let mut standing = standing.lock();
            let allowed = before + expected..=after + expected;
            assert!(allowed.contains(&standing.not_before), "{seconds}");
            // As if it had been waited for.
            standing.not_before = before;
        }
    }
}
