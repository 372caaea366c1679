//! Places that each account has, whatever others take of theirs.

use std::sync::Arc;

use cloudserve_protocol::ids::UserId;
use moka::sync::Cache;
use tokio::sync::Semaphore;

/// Places by account.
pub(super) struct Places {
    per_account: usize,
    known: Cache<UserId, Arc<Semaphore>>,
}

impl Places {
    /// What is forgotten first is the account that was not asked for longest.
    const MAX_ACCOUNTS: u64 = 100_000;

    pub(super) fn new(per_account: usize) -> Self {
        Self { per_account, known: Cache::builder().max_capacity(Self::MAX_ACCOUNTS).build() }
    }

    pub(super) fn per_account(&self) -> usize {
        self.per_account
    }

    pub(super) fn of(&self, user_id: UserId) -> Arc<Semaphore> {
        self.known.get_with(user_id, || Arc::new(Semaphore::new(self.per_account)))
    }
}
