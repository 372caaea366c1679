//! Room for the bodies of deploys, which are large and may come slowly.
//!
//! Bounded: bodies in memory, those of one account, and how long one waits until there is room.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::ids::UserId;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::places::Places;
use super::refusal::Refusal;

/// Room for one body.
#[derive(Debug)]
pub(crate) struct Room {
    _of_account: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// All the room there is.
pub(crate) struct Uploads {
    all: Arc<Semaphore>,
    by_account: Places<UserId>,
    patience: Duration,
}

impl Uploads {
    /// `parallel` bodies, a quarter of them of one account; who waits longer than `patience` is
    /// turned away.
    pub(crate) fn new(parallel: usize, patience: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(parallel.max(1))),
            by_account: Places::new((parallel / 4).max(1)),
            patience,
        }
    }

    /// Waits for room.
    pub(crate) async fn room(&self, user_id: UserId) -> Result<Room, Refusal> {
        let taken = async {
            // In this order: who waits for others of the account keeps nobody else out.
            let of_account = self.by_account.of(user_id).acquire_owned().await?;
            let of_all = self.all.clone().acquire_owned().await?;
            Ok::<_, AcquireError>(Room { _of_account: of_account, _of_all: of_all })
        };
        match timeout(self.patience, taken).await {
            Ok(taken) => taken.map_err(Refusal::internal),
            Err(_) => Err(Refusal::Busy),
        }
    }
}
