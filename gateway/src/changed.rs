//! Which function has changed when: what was looked up before counts for nothing after it.
//!
//! Time is counted in changes. A change costs the same however much is remembered, so nobody pays for an
//! account that changes its functions all the time.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use cloudserve_protocol::ids::FunctionId;

/// Functions share these places, by their ids. Who shares one is looked up once more than would be
/// needed, and never less.
const PLACES: usize = 16_384;

/// The changes there were.
pub(crate) struct Changed {
    now: AtomicU64,
    /// When a function of each place last changed.
    functions: Box<[AtomicU64]>,
    /// When all of them may have.
    all: AtomicU64,
}

impl Changed {
    pub(crate) fn new() -> Self {
        Self {
            now: AtomicU64::new(0),
            functions: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
        }
    }

    /// To be asked for before a lookup begins.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Acquire)
    }

    /// It has changed. One change is told after the other.
    pub(crate) fn function(&self, id: FunctionId) {
        self.begin(self.place(id));
    }

    /// Anything may have. One change is told after the other.
    pub(crate) fn all(&self) {
        self.begin(&self.all);
    }

    /// Whether what a lookup of this function has found that began in this epoch may be taken now.
    pub(crate) fn holds(&self, epoch: u64, id: FunctionId) -> bool {
        [&self.all, self.place(id)].iter().all(|changed| changed.load(Acquire) <= epoch)
    }

    fn begin(&self, changed: &AtomicU64) {
        let epoch = self.now() + 1;
        changed.store(epoch, Release);
        // Not before: who knows of the epoch knows what has changed in it.
        self.now.store(epoch, Release);
    }

    /// The last bytes of an id are random.
    fn place(&self, id: FunctionId) -> &AtomicU64 {
        let id = id.as_bytes();
        &self.functions[usize::from(u16::from_be_bytes([id[14], id[15]])) % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_what_it_names() {
        let [one, other] = [1, 2].map(|last| FunctionId::from_bytes([last; 16]));
        let changed = Changed::new();
        let before = changed.now();
        let hold = |epoch| [one, other].map(|id| changed.holds(epoch, id));
        assert_eq!(hold(before), [true, true]);
        changed.function(one);
        let between = changed.now();
        assert_eq!((hold(before), hold(between)), ([false, true], [true, true]));
        changed.all();
        assert_eq!((hold(between), hold(changed.now())), ([false, false], [true, true]));
    }
}
