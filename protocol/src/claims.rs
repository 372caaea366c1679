//! Who has a call that was sent to a worker and may be run elsewhere: the worker, which begins it, or
//! the supervisor, which takes it back because the call before it lasts, or the worker is lost.
//! Decided in memory both share, since a worker that computes reads no frames, and one that is lost
//! says nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Calls that may wait in one worker at the same time: as many of the shortest as are expected to be
/// over in a millisecond or two.
pub const MAX_WAITING_CALLS: usize = 255;

/// More than may wait, so that a call that was taken back long ago shares its slot with none that
/// waits.
const SLOTS: usize = MAX_DISTANCE as usize + 1;

/// How far the number of a call may be from that of another which may still be taken back.
pub const MAX_DISTANCE: u32 = 511;

const OFFERED: u64 = 0;
const CLAIMED: u64 = 1;
const REVOKED: u64 = 2;

/// The shared memory. All zeroes is a valid value: no call was offered.
#[repr(C)]
#[derive(Debug)]
pub struct ClaimSlots([AtomicU64; SLOTS]);

impl ClaimSlots {
    fn slot(&self, call: u32) -> &AtomicU64 {
        &self.0[call as usize % SLOTS]
    }

    /// The supervisor is about to send this call.
    pub fn offer(&self, call: u32) {
        self.slot(call).store(word(call, OFFERED), Ordering::Release);
    }

    /// The worker begins this call, unless it was taken back.
    #[must_use]
    pub fn claim(&self, call: u32) -> bool {
        self.decide(call, CLAIMED)
    }

    /// The supervisor takes this call back, unless it has begun.
    #[must_use]
    pub fn revoke(&self, call: u32) -> bool {
        self.decide(call, REVOKED)
    }

    fn decide(&self, call: u32, to: u64) -> bool {
        let (from, to) = (word(call, OFFERED), word(call, to));
        self.slot(call).compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

fn word(call: u32, state: u64) -> u64 {
    u64::from(call) << 2 | state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_begun_or_taken_back_and_never_both() {
        let slots = ClaimSlots([const { AtomicU64::new(0) }; SLOTS]);
        assert!(!slots.claim(5) && !slots.revoke(5), "it was not offered");
        for (first, second) in [
            (ClaimSlots::claim as fn(&_, _) -> _, ClaimSlots::revoke as fn(&_, _) -> _),
            (ClaimSlots::revoke, ClaimSlots::claim),
        ] {
            slots.offer(5);
            assert!(first(&slots, 5));
            assert!(!second(&slots, 5) && !first(&slots, 5));
        }
        slots.offer(5 + MAX_DISTANCE + 1);
        assert!(!slots.claim(5), "its slot is another call's by now");
        assert!(slots.claim(5 + MAX_DISTANCE + 1));
    }
}
