//! Dependency trees: `usedAt` and `sweptUntil` by `depHash`. Whoever notes either writes the same document, so of
//! two at the same time one begins again and sees the other.

use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::ids::DepHash;
use mongodb::bson::{Bson, DateTime, doc};
use mongodb::options::ReturnDocument;
use serde::Deserialize;

use super::database::{Database, Failed, Transaction, in_transaction};
use super::queue::lease_end;
use super::schema::{TREES, VERSIONS};
use super::values::{date, is_duplicate, parse, time};
use crate::{StoreError, Timestamp, TreeStore};

/// [`TreeStore`] over MongoDB.
pub(super) struct MongoTrees {
    database: Database,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SweptDocument {
    swept_until: DateTime,
}

impl MongoTrees {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    /// Says whether it was not known before.
    async fn note(
        &self,
        hash: &DepHash,
        used_at: Bson,
        tx: &mut Transaction,
    ) -> Result<bool, Failed> {
        let trees = self.database.collection(TREES);
        let used = vec![doc! { "$set": { "usedAt": used_at } }];
        let note = trees.update_one(doc! { "_id": hash.as_str() }, used).upsert(true);
        match note.session(tx.session()).await {
            // Upserts that met each other.
            Err(error) if is_duplicate(&error) => Err(Failed::Again),
            Err(error) => Err(error.into()),
            Ok(noted) => Ok(noted.upserted_id.is_some()),
        }
    }

    async fn try_use(&self, hash: &DepHash, tx: &mut Transaction) -> Result<bool, Failed> {
        let swept = doc! {
            "_id": hash.as_str(), "$expr": { "$gt": ["$sweptUntil", "$$NOW"] },
        };
        let trees = self.database.collection(TREES);
        if trees.find_one(swept).session(tx.session()).await?.is_some() {
            return Ok(false);
        }
        self.note(hash, "$$NOW".into(), tx).await?;
        Ok(true)
    }

    async fn try_look(
        &self,
        hash: &DepHash,
        age: Duration,
        lease: Duration,
        tx: &mut Transaction,
    ) -> Result<Option<Timestamp>, Failed> {
        let versions = self.database.collection(VERSIONS);
        let naming = versions.find_one(doc! { "built.depHash": hash.as_str() });
        let naming = naming.projection(doc! { "_id": 1 });
        let is_named = naming.session(tx.session()).await?.is_some();
        let used_at: Bson =
            if is_named { "$$NOW".into() } else { doc! { "$ifNull": ["$usedAt", "$$NOW"] }.into() };
        if self.note(hash, used_at, tx).await? || is_named {
            return Ok(None);
        }
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        // A field that is not there is less than every time.
        let unused = doc! { "_id": hash.as_str(), "$expr": { "$and": [
            { "$lte": ["$usedAt", { "$subtract": ["$$NOW", age_ms] }] },
            { "$lte": ["$sweptUntil", "$$NOW"] },
        ] } };
        let mark = vec![doc! { "$set": { "sweptUntil": lease_end(lease) } }];
        let trees = self.database.collection(TREES);
        let begin = trees.find_one_and_update(unused, mark).return_document(ReturnDocument::After);
        let Some(begun) = begin.session(tx.session()).await? else { return Ok(None) };
        let SweptDocument { swept_until } = parse("tree", &begun)?;
        Ok(Some(time(swept_until)))
    }
}

#[async_trait]
impl TreeStore for MongoTrees {
    async fn use_tree(&self, hash: &DepHash) -> Result<bool, StoreError> {
        in_transaction!(self.database, |tx| self.try_use(hash, &mut tx))
    }

    async fn look_at_tree(
        &self,
        hash: &DepHash,
        age: Duration,
        lease: Duration,
    ) -> Result<Option<Timestamp>, StoreError> {
        in_transaction!(self.database, |tx| self.try_look(hash, age, lease, &mut tx))
    }

    async fn forget_tree(&self, hash: &DepHash, until: Timestamp) -> Result<(), StoreError> {
        let removed = doc! { "_id": hash.as_str(), "sweptUntil": date(until) };
        let trees = self.database.collection(TREES);
        self.database.bounded(trees.delete_one(removed)).await.map(drop)
    }
}
