//! What may be stored of functions that are not there. How long that is so is by the clock of the
//! database.

use std::time::Duration;

use cloudserve_protocol::ids::FunctionId;
use mongodb::bson::{Document, Uuid, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::schema::{FUNCTIONS, REMAINS};
use super::values::{Key, parse};
use crate::StoreError;

#[derive(Deserialize)]
struct NoteDocument {
    #[serde(rename = "_id")]
    id: Uuid,
}

fn noted_now() -> Vec<Document> {
    vec![doc! { "$set": { "notedAt": "$$NOW" } }]
}

pub(super) async fn note(database: &Database, id: FunctionId) -> Result<(), StoreError> {
    let remains = database.collection(REMAINS);
    let note = remains.update_one(doc! { "_id": id.key() }, noted_now()).upsert(true);
    database.bounded(note).await.map(drop)
}

/// The same when, and only when, the transaction commits.
pub(super) async fn note_with(
    database: &Database,
    id: FunctionId,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let remains = database.collection(REMAINS);
    let note = remains.update_one(doc! { "_id": id.key() }, noted_now()).upsert(true);
    note.session(tx.session()).await?;
    Ok(())
}

pub(super) async fn forget(database: &Database, id: FunctionId) -> Result<(), StoreError> {
    let remains = database.collection(REMAINS);
    database.bounded(remains.delete_one(doc! { "_id": id.key() })).await.map(drop)
}

/// The same when, and only when, the transaction commits.
pub(super) async fn forget_with(
    database: &Database,
    id: FunctionId,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let remains = database.collection(REMAINS);
    remains.delete_one(doc! { "_id": id.key() }).session(tx.session()).await?;
    Ok(())
}

/// See [`crate::FunctionStore::remains`].
pub(super) async fn take(
    database: &Database,
    age: Duration,
    tx: &mut Transaction,
) -> Result<Option<FunctionId>, Failed> {
    let remains = database.collection(REMAINS);
    let functions = database.collection(FUNCTIONS);
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    loop {
        let is_old = doc! { "$expr": { "$lte": ["$notedAt", { "$subtract": ["$$NOW", age_ms] }] } };
        let oldest = remains.find_one_and_update(is_old, noted_now()).sort(doc! { "notedAt": 1 });
        let Some(found) = oldest.session(tx.session()).await? else { return Ok(None) };
        let NoteDocument { id } = parse("function", &found)?;
        let id = FunctionId::of(id);
        let there = functions.find_one(doc! { "_id": id.key() }).projection(doc! { "_id": 1 });
        if there.session(tx.session()).await?.is_none() {
            return Ok(Some(id));
        }
        // It came with an import.
        forget_with(database, id, tx).await?;
    }
}
