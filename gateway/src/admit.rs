//! How often one credential may call: a token bucket per credential, as one number each (GCRA).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloudserve_identity::Via;
use cloudserve_protocol::ids::{ApiKeyId, UserId};
use moka::sync::Cache;

use crate::authenticate::Caller;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// After this long without a call a bucket is full again, and as good as a new one.
const FORGET_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Credential {
    Key(ApiKeyId),
    /// All sessions of an account: a new token is no new allowance.
    Sessions(UserId),
    /// Who shows none of ours; all whose address is not known are one.
    Address(Option<IpAddr>),
}

/// Bounds the rate of each credential.
pub(crate) struct RateLimit {
    /// Of credentials whose account has no other bound; 0 sets none.
    per_second: u32,
    epoch: Instant,
    /// When the bucket will be full again, in nanoseconds after `epoch`.
    full_at: Cache<Credential, Arc<AtomicU64>>,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32, max_entries: u64) -> Self {
        let full_at = Cache::builder().max_capacity(max_entries).time_to_idle(FORGET_AFTER).build();
        Self { per_second, epoch: Instant::now(), full_at }
    }

    /// Takes one token. `Err` holds the bound: there is none. `address` is asked for only where it
    /// counts.
    pub(crate) fn admit(
        &self,
        caller: &Caller,
        address: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(), u32> {
        let (credential, own) = match caller {
            Caller::Known(principal) => {
                let credential = match &principal.via {
                    Via::ApiKey { id, .. } => Credential::Key(*id),
                    Via::Session { .. } => Credential::Sessions(principal.user_id),
                };
                (credential, principal.rate_per_second)
            }
            _ => (Credential::Address(address()), None),
        };
        let per_second = own.unwrap_or(self.per_second);
        if per_second == 0 {
            return Ok(());
        }
        let full_at = self.full_at.get_with(credential, Arc::default);
        let admitted = Self::take(&full_at, self.epoch.elapsed(), per_second);
        if admitted { Ok(()) } else { Err(per_second) }
    }

    fn take(full_at: &AtomicU64, now: Duration, per_second: u32) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let token = NANOS_PER_SECOND / u64::from(per_second);
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
        let bucket = AtomicU64::default();
        let taken = |at_ms| {
            let now = Duration::from_millis(at_ms);
            (0..100).filter(|_| RateLimit::take(&bucket, now, 10)).count()
        };
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(5_000), 10);
    }
}
