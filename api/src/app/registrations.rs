//! How many accounts begin in one network: what an account may have is bounded, so their number must be.
//!
//! What is refused before it is stored counts for nothing: who mistypes a name has lost none.

use std::time::Duration;

use cloudserve_identity::{Buckets, Network};

use super::refusal::Refusal;

/// Networks that are remembered at most.
const MAX_KNOWN: u64 = 100_000;

/// Accounts that have begun, by network.
pub(crate) struct Registrations {
    /// 0 sets no bound.
    per_hour: u32,
    /// All whose address is not known are one.
    begun: Buckets<Option<Network>>,
}

impl Registrations {
    /// As many as there may be in an hour may also begin at once.
    pub(crate) fn new(per_hour: u32) -> Self {
        let begun = Buckets::new(MAX_KNOWN, Duration::from_hours(1), Duration::ZERO);
        Self { per_hour, begun }
    }

    /// Whether an account may begin there now; none does by asking.
    pub(crate) fn admit(&self, from: Option<Network>) -> Result<(), Refusal> {
        let per_hour = self.per_hour;
        match self.begun.wait(&from, per_hour) {
            Some(retry_after) if per_hour > 0 => {
                Err(Refusal::TooManyRegistrations { per_hour, retry_after })
            }
            _ => Ok(()),
        }
    }

    /// Another begins there, unless others have taken the last meanwhile.
    pub(crate) fn begin(&self, from: Option<Network>) -> Result<(), Refusal> {
        let per_hour = self.per_hour;
        if per_hour == 0 || self.begun.take(from, per_hour) {
            return Ok(());
        }
        let retry_after = self.begun.wait(&from, per_hour).unwrap_or_default();
        Err(Refusal::TooManyRegistrations { per_hour, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_counts_and_without_a_bound_nothing_does() {
        let here = Some(Network::of([203, 0, 113, 1].into()));
        let bounded = Registrations::new(2);
        for _ in 0..9 {
            bounded.admit(here).unwrap();
        }
        for _ in 0..2 {
            bounded.begin(here).unwrap();
        }
        for refused in [bounded.admit(here), bounded.begin(here)] {
            assert!(matches!(refused, Err(Refusal::TooManyRegistrations { per_hour: 2, .. })));
        }
        bounded.begin(None).unwrap();

        let free = Registrations::new(0);
        for _ in 0..9 {
            free.admit(here).unwrap();
            free.begin(here).unwrap();
        }
    }
}
