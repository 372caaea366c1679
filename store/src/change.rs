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

/// Changes a reader may fall behind before it must drop its cache.
const FEED_LENGTH: usize = 4_096;

/// The feed of an installation that lives in one process.
#[derive(Debug, Clone)]
pub(crate) struct LocalFeed(broadcast::Sender<Change>);

impl LocalFeed {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(FEED_LENGTH))
    }

    pub(crate) fn announce(&self, change: Change) {
        // An error only says that nobody listens.
        let _ = self.0.send(change);
    }
}

impl ChangeFeed for LocalFeed {
    fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
