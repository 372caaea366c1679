//! What changed, so that caches need not wait for their entries to age.

use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId};
use tokio::sync::broadcast;

/// A committed change. Sent after the commit; a reader that asks the store sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A function was activated, edited or deleted.
    Function(FunctionId),
    /// A deployment waits in the queue.
    DeploymentQueued,
    /// A key was revoked.
    ApiKey(ApiKeyId),
    /// An account changed.
    User(UserId),
    /// A session token was revoked.
    Token,
}

/// A stream of changes. Delivery is best effort: a cache must also bound the age of its entries.
pub trait ChangeFeed: Send + Sync {
    /// Changes from now on. A receiver that lags must drop its whole cache.
    fn subscribe(&self) -> broadcast::Receiver<Change>;
}
