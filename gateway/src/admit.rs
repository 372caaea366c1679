//! How often one credential may call: a token bucket per credential, as one number each (GCRA).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloudserve_identity::Via;
use cloudserve_protocol::ids::{ApiKeyId, UserId};
use moka::sync::Cache;

use crate::authenticate::Caller;
use crate::gateway::Peer;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// After this long without a call a bucket is full again, and as good as a new one.
const FORGET_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Credential {
    Key(ApiKeyId),
    /// All sessions of an account: a new token is no new allowance.
    Sessions(UserId),
    Address(Peer),
}

/// Bounds the rate of each credential.
pub(crate) struct RateLimit {
    per_second: u32,
    epoch: Instant,
    /// When the bucket will be full again, in nanoseconds after `epoch`.
    full_at: Cache<Credential, Arc<AtomicU64>>,
}

impl RateLimit {
    /// `None`: no bound.
    pub(crate) fn new(per_second: u32, max_entries: u64) -> Option<Self> {
        (per_second > 0).then(|| Self {
            per_second,
            epoch: Instant::now(),
            full_at: Cache::builder().max_capacity(max_entries).time_to_idle(FORGET_AFTER).build(),
        })
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes one token. `false`: there is none.
    pub(crate) fn admits(&self, caller: &Caller, peer: &Peer) -> bool {
        let credential = match caller {
            Caller::Known { principal, .. } => match &principal.via {
                Via::ApiKey { id, .. } => Credential::Key(*id),
                Via::Session { .. } => Credential::Sessions(principal.user_id),
            },
            _ => Credential::Address(peer.clone()),
        };
        self.take(&self.full_at.get_with(credential, Arc::default), self.epoch.elapsed())
    }

    fn take(&self, full_at: &AtomicU64, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let token = NANOS_PER_SECOND / u64::from(self.per_second);
        full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now) + token;
                (next - now <= NANOS_PER_SECOND).then_some(next)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_holds_one_second_of_calls() {
        let limit = RateLimit::new(10, 10).unwrap();
        let bucket = AtomicU64::default();
        let taken = |at_ms| {
            let now = Duration::from_millis(at_ms);
            (0..100).filter(|_| limit.take(&bucket, now)).count()
        };
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(5_000), 10);
        assert!(RateLimit::new(0, 10).is_none());
    }
}
