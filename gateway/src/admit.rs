//! How often one credential may call.

use std::net::IpAddr;
use std::time::Duration;

use cloudserve_identity::{Buckets, Network, Via};
use cloudserve_protocol::ids::{ApiKeyId, UserId};

use crate::authenticate::Caller;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Credential {
    Key(ApiKeyId),
    /// All sessions of an account: a new token is no new allowance.
    Sessions(UserId),
    /// Who shows none of ours; all whose address is not known are one.
    Network(Option<Network>),
}

/// Bounds the rate of each credential.
pub(crate) struct RateLimit {
    /// Of credentials whose account has no other bound; 0 sets none.
    per_second: u32,
    calls: Buckets<Credential>,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32, max_entries: u64) -> Self {
        let calls = Buckets::new(max_entries, Duration::from_secs(1), Duration::ZERO);
        Self { per_second, calls }
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
            _ => (Credential::Network(address().map(Network::of)), None),
        };
        let per_second = own.unwrap_or(self.per_second);
        let admitted = per_second == 0 || self.calls.take(credential, per_second);
        if admitted { Ok(()) } else { Err(per_second) }
    }
}
