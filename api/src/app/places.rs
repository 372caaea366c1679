//! Places that each account or address has, whatever others take of theirs.

use std::hash::Hash;
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::Semaphore;

/// How many are remembered.
const MAX_KNOWN: u64 = 100_000;

/// Places by whose they are.
pub(super) struct Places<K> {
    each: usize,
    known: Cache<K, Arc<Semaphore>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Places<K> {
    /// What is forgotten first is who was not asked for longest.
    pub(super) fn new(each: usize) -> Self {
        Self { each, known: Cache::builder().max_capacity(MAX_KNOWN).build() }
    }

    pub(super) fn each(&self) -> usize {
        self.each
    }

    pub(super) fn of(&self, whose: K) -> Arc<Semaphore> {
        self.known.get_with(whose, || Arc::new(Semaphore::new(self.each)))
    }
}
