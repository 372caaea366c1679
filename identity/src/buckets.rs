//! How often somebody may do something: a token bucket for each, as one number (GCRA).

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::sync::Cache;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Buckets that hold one second of tokens each. Their number is bounded: the one that was used least
/// is forgotten first.
pub struct Buckets<K> {
    begun: Instant,
    longest_debt_ns: u64,
    /// When a bucket will be full again, in nanoseconds after `begun`.
    full_at: Cache<K, Arc<AtomicU64>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    /// At most so many buckets, none of which owes more than what it gets in `longest_debt`.
    #[must_use]
    pub fn new(max_entries: u64, longest_debt: Duration) -> Self {
        // Unused for longer than that a bucket is full, and as good as a new one.
        let full_again = Duration::from_secs(2) + longest_debt;
        Self {
            begun: Instant::now(),
            longest_debt_ns: nanos(longest_debt),
            full_at: Cache::builder().max_capacity(max_entries).time_to_idle(full_again).build(),
        }
    }

    /// Takes a token out of a bucket that gets so many a second. `false`: there is none.
    pub fn take(&self, key: K, per_second: u32) -> bool {
        let full_at = self.full_at.get_with(key, Arc::default);
        take(&full_at, self.now(), token(per_second))
    }

    /// Takes a token out of a bucket that gets so many a second, whether there is one or not.
    pub(crate) fn charge(&self, key: K, per_second: u32) {
        let full_at = self.full_at.get_with(key, Arc::default);
        charge(&full_at, self.now(), token(per_second), self.longest_debt_ns);
    }

    /// How long it takes until a bucket that gets so many a second has a token; `None`: it has one.
    pub fn wait(&self, key: &K, per_second: u32) -> Option<Duration> {
        let full_at = self.full_at.get(key)?;
        wait(&full_at, self.now(), token(per_second))
    }

    fn now(&self) -> u64 {
        nanos(self.begun.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// In what time a bucket gets one.
fn token(per_second: u32) -> u64 {
    NANOS_PER_SECOND / u64::from(per_second.max(1))
}

fn take(full_at: &AtomicU64, now: u64, token: u64) -> bool {
    full_at
        .fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now) + token;
            (next - now <= NANOS_PER_SECOND).then_some(next)
        })
        .is_ok()
}

fn charge(full_at: &AtomicU64, now: u64, token: u64, longest_debt: u64) {
    let latest = now + NANOS_PER_SECOND + longest_debt;
    // It is always taken, so this is no error.
    let _ = full_at
        .fetch_update(Relaxed, Relaxed, |full_at| Some((full_at.max(now) + token).min(latest)));
}

fn wait(full_at: &AtomicU64, now: u64, token: u64) -> Option<Duration> {
    let missing = (full_at.load(Relaxed) + token).saturating_sub(now + NANOS_PER_SECOND);
    (missing > 0).then(|| Duration::from_nanos(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_full_bucket_holds_one_second_of_tokens() {
        let bucket = AtomicU64::default();
        let taken = |at_ms: u64| (0..100).filter(|_| take(&bucket, at_ms * MS, token(10))).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(5_000), 10);
    }

    #[test]
    fn what_is_owed_is_waited_for_and_bounded() {
        let bucket = AtomicU64::default();
        let missing_ms = |at_ms: u64| wait(&bucket, at_ms * MS, token(10)).map(|d| d.as_millis());
        let charged = |n: u32| (0..n).for_each(|_| charge(&bucket, 0, token(10), 60_000 * MS));
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
        let buckets = Buckets::new(10, Duration::ZERO);
        assert!(buckets.take("a", 1) && !buckets.take("a", 1) && buckets.take("b", 1));
        assert!(buckets.wait(&"a", 1).is_some() && buckets.wait(&"c", 1).is_none());
    }
}
