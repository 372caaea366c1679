//! What changed when: what was looked up before a change of its subject counts for nothing after it.
//!
//! Time is counted in changes. A change costs the same however much is remembered. Invariant: an answer
//! belongs to the epoch in which its lookup began, so one that is still looked up while its subject
//! changes does not hold either.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId};
use parking_lot::Mutex;

/// Subjects share these places, by their ids. Who shares one is looked up once more than would be
/// needed, and never less.
const PLACES: usize = 16_384;

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A function.
    Function(FunctionId),
    /// A key.
    ApiKey(ApiKeyId),
    /// An account.
    User(UserId),
    /// Every session: which one has ended, a change does not say.
    Sessions,
}

/// The changes there were.
pub struct Epochs {
    now: AtomicU64,
    /// When a subject of each place last changed.
    subjects: Box<[AtomicU64]>,
    /// When a session last ended.
    sessions: AtomicU64,
    /// When all of them may have changed.
    all: AtomicU64,
    /// One change is told after the other.
    telling: Mutex<()>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            now: AtomicU64::new(0),
            subjects: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            sessions: AtomicU64::new(0),
            all: AtomicU64::new(0),
            telling: Mutex::new(()),
        }
    }
}

impl Epochs {
    /// To be asked for before a lookup begins.
    #[inline] // Once a call.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Acquire)
    }

    /// It has changed.
    pub fn change(&self, subject: Subject) {
        self.begin(self.place(&subject));
    }

    /// Anything may have changed.
    pub fn change_all(&self) {
        self.begin(&self.all);
    }

    /// Whether what a lookup of these has found that began in this epoch may be taken now.
    #[inline] // Once a call; nearly always it is of this epoch.
    #[must_use]
    pub fn holds<const N: usize>(&self, epoch: u64, subjects: [Subject; N]) -> bool {
        let has_not_changed = |changed: &AtomicU64| changed.load(Acquire) <= epoch;
        epoch == self.now()
            || (has_not_changed(&self.all)
                && subjects.iter().all(|subject| has_not_changed(self.place(subject))))
    }

    fn begin(&self, changed: &AtomicU64) {
        let _one_at_a_time = self.telling.lock();
        let epoch = self.now() + 1;
        changed.store(epoch, Release);
        // Not before: who knows of the epoch knows what has changed in it.
        self.now.store(epoch, Release);
    }

    /// The last bytes of an id are random.
    fn place(&self, subject: &Subject) -> &AtomicU64 {
        let id = match subject {
            Subject::Function(id) => id.as_bytes(),
            Subject::ApiKey(id) => id.as_bytes(),
            Subject::User(id) => id.as_bytes(),
            Subject::Sessions => return &self.sessions,
        };
        &self.subjects[usize::from(u16::from_be_bytes([id[14], id[15]])) % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ScopedJoinHandle};

    use super::*;

    /// Three subjects of three places.
    fn subjects() -> [Subject; 3] {
        [
            Subject::Function(FunctionId::from_bytes([1; 16])),
            Subject::User(UserId::from_bytes([2; 16])),
            Subject::Sessions,
        ]
    }

    #[test]
    fn a_change_concerns_what_it_names() {
        let subjects = subjects();
        for changed in subjects {
            let epochs = Epochs::default();
            let hold = |epoch| subjects.map(|subject| epochs.holds(epoch, [subject]));
            let others = subjects.map(|subject| subject != changed);
            let before = epochs.now();
            assert_eq!(hold(before), [true; 3]);
            epochs.change(changed);
            let after = epochs.now();
            assert_eq!((hold(before), hold(after)), (others, [true; 3]));
            assert!(!epochs.holds(before, subjects) && epochs.holds(after, subjects));
            // What comes later is later.
            epochs.change(Subject::ApiKey(ApiKeyId::from_bytes([9; 16])));
            assert_eq!((hold(before), hold(after)), (others, [true; 3]));
            epochs.change_all();
            assert_eq!((hold(after), hold(epochs.now())), ([false; 3], [true; 3]));
        }
    }

    #[test]
    fn who_knows_of_an_epoch_knows_what_has_changed_in_it() {
        const CHANGES: u64 = 20_000;
        let epochs = &Epochs::default();
        let [one, other, _] = subjects();
        thread::scope(|scope| {
            let telling = [one, other].map(|subject| {
                scope.spawn(move || (0..CHANGES).for_each(|_| epochs.change(subject)))
            });
            while !telling.iter().all(ScopedJoinHandle::is_finished) {
                let epoch = epochs.now();
                if let Some(before) = epoch.checked_sub(1) {
                    assert!(!epochs.holds(before, [one, other]), "{epoch}");
                }
            }
        });
        assert_eq!(epochs.now(), 2 * CHANGES, "none of them was told with another");
    }
}
