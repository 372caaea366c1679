//! What those who serve do to the database beside their start, since it may take long: indexes over
//! records that are there already.

use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use tokio::task::JoinHandle;

use super::ages::{self, Ages};
use super::database::Database;
use super::schema;
use crate::StoreError;

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_mins(1);

/// A database on its way there. When this is dropped, nobody waits for that any more.
pub(super) struct Beside(JoinHandle<()>);

impl Beside {
    pub(super) fn begin(database: Database, ages: Ages) -> Self {
        Self(tokio::spawn(async move {
            tokio::join!(index(&database), keep(&database, ages));
        }))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn index(database: &Database) {
    while let Err(error) = schema::index_versions(database).await {
        failed(&error, "the indexes of versions could not be made").await;
    }
    while let Err(error) = schema::index_looks(database).await {
        failed(&error, "an index of functions could not be made").await;
    }
}

async fn keep(database: &Database, ages: Ages) {
    while let Err(error) = ages::apply(database, ages).await {
        failed(&error, "how long logs and calls are kept could not be set").await;
    }
}

async fn failed(error: &StoreError, what: &'static str) {
    tracing::warn!(error = %Chain(error), "{what}; it is tried again");
    tokio::time::sleep(PAUSE).await;
}
