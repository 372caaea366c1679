//! Dependency trees in `meta.db`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::DepHash;
use rusqlite::params;

use super::columns::storage_failed;
use super::database::Database;
use super::statements::execute;
use crate::{StoreError, Timestamp, TreeStore};

/// [`TreeStore`] over SQLite.
pub(crate) struct SqliteTrees(Arc<Database>);

impl SqliteTrees {
    pub(crate) fn new(meta: Arc<Database>) -> Self {
        Self(meta)
    }
}

/// As the index says it.
pub(super) const NAMED: &str = "SELECT 1 FROM versions
     WHERE built IS NOT NULL
       AND CASE WHEN json_valid(built) THEN json_extract(built, '$.depHash') END = ?1";

const USED: &str = "INSERT INTO trees (dep_hash, used_at) VALUES (?1, ?2)
     ON CONFLICT (dep_hash) DO UPDATE SET used_at = excluded.used_at";

const USED_IF_NEW: &str = "INSERT INTO trees (dep_hash, used_at) VALUES (?1, ?2)
     ON CONFLICT (dep_hash) DO NOTHING";

#[async_trait]
impl TreeStore for SqliteTrees {
    async fn use_tree(&self, hash: &DepHash) -> Result<bool, StoreError> {
        let hash = hash.clone();
        self.0
            .write(move |c, _| {
                execute(
                    c,
                    "INSERT INTO trees (dep_hash, used_at) VALUES (?1, ?2)
                     ON CONFLICT (dep_hash) DO UPDATE SET used_at = excluded.used_at
                     WHERE swept_until <= excluded.used_at",
                    params![hash.as_str(), Timestamp::now().0],
                )
                .map(|used| used == 1)
            })
            .await
    }

    async fn look_at_tree(
        &self,
        hash: &DepHash,
        age: Duration,
        lease: Duration,
    ) -> Result<Option<Timestamp>, StoreError> {
        let hash = hash.clone();
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.0
            .write(move |c, _| {
                let now = Timestamp::now();
                let is_named = c
                    .prepare_cached(NAMED)
                    .and_then(|mut query| query.exists([hash.as_str()]))
                    .map_err(storage_failed)?;
                let note = if is_named { USED } else { USED_IF_NEW };
                if execute(c, note, params![hash.as_str(), now.0])? == 1 {
                    return Ok(None);
                }
                let until = now.after(lease);
                let begun = execute(
                    c,
                    "UPDATE trees SET swept_until = ?2
                     WHERE dep_hash = ?1 AND used_at <= ?3 AND swept_until <= ?4",
                    params![hash.as_str(), until.0, now.0.saturating_sub(age_ms), now.0],
                )?;
                Ok((begun == 1).then_some(until))
            })
            .await
    }

    async fn forget_tree(&self, hash: &DepHash, until: Timestamp) -> Result<(), StoreError> {
        let hash = hash.clone();
        self.0
            .write(move |c, _| {
                execute(
                    c,
                    "DELETE FROM trees WHERE dep_hash = ?1 AND swept_until = ?2",
                    params![hash.as_str(), until.0],
                )
                .map(drop)
            })
            .await
    }
}
