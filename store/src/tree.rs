//! Dependency trees: which of them are in use, and the removal of those that are not.
//!
//! A tree is in use while a version names it, whatever became of that version, and is taken by builds before
//! one does. Nobody tells when the last version is gone that named it: it is **looked** whether one does,
//! time and again, and a tree has been unused since a look last found one, or a build took it. All times are by
//! the clock of the storage.
//!
//! Invariant: whoever has been told that it may use a tree, and finds it stored after that, may count on it for
//! as long as unused ones are kept: no removal is under way, and none begins.

use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::DepHash;

use crate::{StoreError, Timestamp};

/// What is known of dependency trees.
#[async_trait]
pub trait TreeStore: Send + Sync {
    /// Notes that a build uses this tree. `false`: it may be removed in this moment, and nothing is noted.
    async fn use_tree(&self, hash: &DepHash) -> Result<bool, StoreError>;

    /// Looks whether a version names this tree, and notes it if so. If none does, and it has not been used
    /// for so long, its removal begins, which is over when the lease is: then, unless it is forgotten before.
    /// Of a tree that was not looked at before it is not known, and it counts as used now.
    async fn look_at_tree(
        &self,
        hash: &DepHash,
        age: Duration,
        lease: Duration,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Forgets a tree of which nothing is stored any more, and ends the removal that is over then.
    async fn forget_tree(&self, hash: &DepHash, until: Timestamp) -> Result<(), StoreError>;
}
