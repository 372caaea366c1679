//! A queue in which everybody gets a turn: first come, first served among the things of one owner,
//! one after the other among owners. However much one puts in, another's next thing waits for at
//! most one of each owner's.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// See the module.
#[derive(Debug)]
pub(crate) struct Turns<K, T> {
    queues: HashMap<K, VecDeque<T>>,
    /// Owners that have something in it, the one whose turn it is first.
    order: VecDeque<K>,
    len: usize,
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    pub(crate) fn new() -> Self {
        Self { queues: HashMap::new(), order: VecDeque::new(), len: 0 }
    }

    pub(crate) fn push(&mut self, owner: K, thing: T) {
        let queue = self.queues.entry(owner).or_default();
        if queue.is_empty() {
            self.order.push_back(owner);
        }
        queue.push_back(thing);
        self.len += 1;
    }

    /// The next thing. Its owner's turn comes again after everybody else's.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let owner = self.order.pop_front()?;
        let queue = self.queues.get_mut(&owner)?;
        let thing = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&owner);
        } else {
            self.order.push_back(owner);
        }
        self.len -= usize::from(thing.is_some());
        thing
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_all_of_anothers() {
        let mut turns = Turns::new();
        (0..100).for_each(|n| turns.push('a', n));
        turns.push('b', 1_000);
        turns.push('c', 2_000);
        turns.push('b', 1_001);
        let first: Vec<_> = std::iter::from_fn(|| turns.pop()).take(6).collect();
        assert_eq!(first, [0, 1_000, 2_000, 1, 1_001, 2]);
        assert_eq!(turns.len(), 97);
        assert_eq!(std::iter::from_fn(|| turns.pop()).count(), 97);
        assert_eq!((turns.len(), turns.pop()), (0, None));
    }
}
