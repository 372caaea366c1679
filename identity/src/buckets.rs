//! How often somebody may do something: a token bucket for each, as one number (GCRA).

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// Buckets that each hold what they get in one period. Their number is bounded: the one that was used
/// least is forgotten first.
pub struct Buckets<K> {
    begun: Instant,
    period_ns: u64,
    longest_debt_ns: u64,
    /// When a bucket will be full again, in nanoseconds after `begun`.
    full_at: Cache<K, Arc<AtomicU64>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    /// At most so many buckets, none of which owes more than what it gets in `longest_debt`.
    #[must_use]
    pub fn new(max_entries: u64, period: Duration, longest_debt: Duration) -> Self {
        // Unused for longer than that a bucket is full, and as good as a new one.
        let full_again = Duration::from_secs(1) + period + longest_debt;
        Self {
            begun: Instant::now(),
            period_ns: nanos(period),
            longest_debt_ns: nanos(longest_debt),
            full_at: Cache::builder().max_capacity(max_entries).time_to_idle(full_again).build(),
        }
    }

    /// Takes a token out of a bucket that gets so many in a period. `false`: there is none.
    pub fn take(&self, key: K, per_period: u32) -> bool {
        let full_at = self.full_at.get_with(key, Arc::default);
        self.rate(per_period).take(&full_at, self.now())
    }

    /// Takes a token out of a bucket that gets so many in a period, whether there is one or not.
    pub(crate) fn charge(&self, key: K, per_period: u32) {
        let full_at = self.full_at.get_with(key, Arc::default);
        self.rate(per_period).charge(&full_at, self.now(), self.longest_debt_ns);
    }

    /// How long it takes until a bucket that gets so many in a period has a token; `None`: it has one.
    pub fn wait(&self, key: &K, per_period: u32) -> Option<Duration> {
        let full_at = self.full_at.get(key)?;
        self.rate(per_period).wait(&full_at, self.now())
    }

    fn rate(&self, per_period: u32) -> Rate {
        Rate::of(per_period, self.period_ns)
    }

    fn now(&self) -> u64 {
        nanos(self.begun.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// In what time a bucket is filled, and in what time it gets one, in nanoseconds.
#[derive(Clone, Copy)]
struct Rate {
    period: u64,
    token: u64,
}

impl Rate {
    fn of(per_period: u32, period: u64) -> Self {
        Self { period, token: period / u64::from(per_period.max(1)) }
    }

    fn take(self, full_at: &AtomicU64, now: u64) -> bool {
        full_at
            .fetch_update(Relaxed, Relaxed, |full_at| {
                let next = full_at.max(now) + self.token;
                (next - now <= self.period).then_some(next)
            })
            .is_ok()
    }

    fn charge(self, full_at: &AtomicU64, now: u64, longest_debt: u64) {
        let latest = now + self.period + longest_debt;
        // It is always taken, so this is no error.
        let _ = full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            Some((full_at.max(now) + self.token).min(latest))
        });
    }

    fn wait(self, full_at: &AtomicU64, now: u64) -> Option<Duration> {
        let missing = (full_at.load(Relaxed) + self.token).saturating_sub(now + self.period);
        (missing > 0).then(|| Duration::from_nanos(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    #[test]
    fn a_full_bucket_holds_the_tokens_of_a_period() {
        for (period, unit) in [(SECOND, MS), (3_600 * SECOND, 3_600 * MS)] {
            let (rate, bucket) = (Rate::of(10, period), AtomicU64::default());
            let taken = |at: u64| (0..100).filter(|_| rate.take(&bucket, at * unit)).count();
            assert_eq!(taken(0), 10);
            assert_eq!(taken(99), 0);
            assert_eq!(taken(100), 1);
            assert_eq!(taken(5_000), 10);
        }
    }

    #[test]
    fn what_is_owed_is_waited_for_and_bounded() {
        let (rate, bucket) = (Rate::of(10, SECOND), AtomicU64::default());
        let missing_ms = |at_ms: u64| rate.wait(&bucket, at_ms * MS).map(|d| d.as_millis());
        let charged = |n: u32| (0..n).for_each(|_| rate.charge(&bucket, 0, 60_000 * MS));
        charged(9);
        assert_eq!(missing_ms(0), None);
        charged(1);
        assert_eq!((missing_ms(0), missing_ms(99), missing_ms(100)), (Some(100), Some(1), None));
        charged(10);
        assert_eq!((missing_ms(0), missing_ms(1_000)), (Some(1_100), Some(100)));
        charged(10_000);
        assert_eq!((missing_ms(0), missing_ms(60_100)), (Some(60_100), None));
    }

    #[test]
    fn everybody_has_a_bucket_of_their_own() {
        let buckets = Buckets::new(10, Duration::from_hours(1), Duration::ZERO);
        assert!(buckets.take("a", 1) && !buckets.take("a", 1) && buckets.take("b", 1));
        assert!(buckets.wait(&"a", 1).is_some() && buckets.wait(&"c", 1).is_none());
    }
}
