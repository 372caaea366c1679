//! Credentials that are not known here, and how many of them the store is asked about.
//!
//! Whether a key exists only the store can say, and anybody can make up a key that looks like one. So
//! of each address the store may be asked about some keys a second that it then does not know. Sessions
//! are signed: nobody makes one up, and none is counted. Invariant: what was valid lately is asked about
//! whatever else comes from its address, and no question counts whose answer is that there is such a key.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;

use crate::address::Network;
use crate::authenticator::Authenticator;
use crate::buckets::Buckets;

/// Why a key was not looked up: too many came from its address that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {per_second} credentials per second that are not valid come from this address; wait \
     before the next"
)]
pub struct TooManyUnknown {
    /// How many there may be.
    pub per_second: u32,
    /// When one may be looked up again.
    pub retry_after: Duration,
}

/// The hash of a credential.
pub(crate) type Fingerprint = [u8; 32];

/// How long a credential is remembered as one that was valid.
const VALID_LATELY: Duration = Duration::from_hours(1);
/// For how long an address may have used its questions up at most.
const LONGEST_DEBT: Duration = Duration::from_mins(1);

const MAX_VALID: u64 = 100_000;
const MAX_UNKNOWN: u64 = 10_000;
const MAX_ADDRESSES: u64 = 100_000;

/// What is remembered of credentials that are not in the cache.
pub(crate) struct Strangers {
    /// 0 sets no bound.
    per_second: u32,
    valid: Cache<Fingerprint, ()>,
    /// What the store did not know a moment ago. None of these becomes valid: keys and sessions are
    /// random, and what has ended stays ended.
    unknown: Cache<Fingerprint, ()>,
    /// By address; all whose address is not known are one.
    questions: Buckets<Option<Network>>,
}

impl Strangers {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            valid: Cache::builder().max_capacity(MAX_VALID).time_to_live(VALID_LATELY).build(),
            unknown: Cache::builder()
                .max_capacity(MAX_UNKNOWN)
                .time_to_live(Authenticator::MAX_STALENESS)
                .build(),
            questions: Buckets::new(MAX_ADDRESSES, Duration::from_secs(1), LONGEST_DEBT),
        }
    }

    /// Whether the store did not know this credential a moment ago.
    pub(crate) fn is_unknown(&self, credential: &Fingerprint) -> bool {
        self.unknown.contains_key(credential)
    }

    /// Whether the store may be asked about this key.
    pub(crate) fn admit(
        &self,
        key: &Fingerprint,
        from: Option<IpAddr>,
    ) -> Result<(), TooManyUnknown> {
        let per_second = self.per_second;
        if per_second == 0 || self.valid.contains_key(key) {
            return Ok(());
        }
        match self.questions.wait(&from.map(Network::of), per_second) {
            Some(retry_after) => Err(TooManyUnknown { per_second, retry_after }),
            None => Ok(()),
        }
    }

    /// The store knows it.
    pub(crate) fn found(&self, credential: Fingerprint) {
        self.valid.insert(credential, ());
    }

    /// The store does not know it, or not any more.
    pub(crate) fn not_found(&self, credential: Fingerprint) {
        self.valid.invalidate(&credential);
        self.unknown.insert(credential, ());
    }

    /// The store is about to be asked about a key that came from there.
    pub(crate) fn question(&self, from: Option<IpAddr>) -> Question<'_> {
        Question { strangers: self, from, counts: true }
    }

    /// A key that the store does not know came from there.
    fn charge(&self, from: Option<IpAddr>) {
        if self.per_second > 0 {
            self.questions.charge(from.map(Network::of), self.per_second);
        }
    }
}

/// A question to the store. It counts when it is dropped, also by who hangs up before the answer has come:
/// the store was asked all the same.
pub(crate) struct Question<'a> {
    strangers: &'a Strangers,
    from: Option<IpAddr>,
    counts: bool,
}

impl Question<'_> {
    /// The answer is not that there is no such key.
    pub(crate) fn does_not_count(mut self) {
        self.counts = false;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.strangers.charge(self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_wrong_a_bounded_number_of_times() {
        let strangers = Strangers::new(3);
        let here = Some("2001:db8::1".parse().unwrap());
        let credential = |n: u8| [n; 32];
        for n in 0..3 {
            strangers.admit(&credential(n), here).unwrap();
            strangers.not_found(credential(n));
            strangers.charge(here);
        }
        let neighbour = Some("2001:db8::2".parse().unwrap());
        for (credential, from) in [(credential(3), here), (credential(4), neighbour)] {
            let refused = strangers.admit(&credential, from);
            assert!(matches!(refused, Err(TooManyUnknown { per_second: 3, .. })));
        }
        // What is known to be none needs no question, and other networks have questions of their own.
        assert!(strangers.is_unknown(&credential(0)) && !strangers.is_unknown(&credential(3)));
        for other in [Some("2001:db8:0:1::1".parse().unwrap()), None] {
            strangers.admit(&credential(3), other).unwrap();
        }
        // Who was valid is let through, until that has ended.
        strangers.found(credential(5));
        strangers.admit(&credential(5), here).unwrap();
        strangers.not_found(credential(5));
        assert!(strangers.is_unknown(&credential(5)));
        assert!(strangers.admit(&credential(5), here).is_err());
        // Without a bound nobody is kept out.
        let strangers = Strangers::new(0);
        for _ in 0..100 {
            strangers.charge(here);
        }
        strangers.admit(&credential(200), here).unwrap();
    }
}
