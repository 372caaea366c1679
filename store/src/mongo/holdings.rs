//! What an account has of functions and versions.

use cloudserve_protocol::ids::UserId;
use mongodb::bson::{RawDocumentBuf, Uuid, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::queue;
use super::schema::{FUNCTIONS, USERS, VERSIONS};
use super::values::{Key, parse, size};
use crate::StoreError;
use crate::function::{HoldingBounds, Holdings, NewVersion};

#[derive(Deserialize)]
struct KeyDocument {
    #[serde(rename = "_id")]
    id: Uuid,
}

#[derive(Deserialize)]
struct SumDocument {
    bytes: i64,
}

pub(super) async fn read(
    database: &Database,
    user_id: UserId,
    tx: &mut Transaction,
) -> Result<Holdings, Failed> {
    let queued = queue::queued(database, user_id, tx).await?;
    let functions = database.collection(FUNCTIONS);
    let found = functions.find(doc! { "user": user_id.key() }).projection(doc! { "_id": 1 });
    let mut found = found.session(tx.session()).await?;
    let mut ids = Vec::new();
    while let Some(row) = found.next(tx.session()).await {
        ids.push(parse::<KeyDocument>("function", &row?)?.id);
    }
    let functions = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    // As the index by bytes has it. Of versions of an earlier release it is not known.
    let sum = [
        doc! { "$match": { "_id.functionId": { "$in": ids } } },
        doc! { "$group": { "_id": null, "bytes": { "$sum": "$bytes" } } },
    ];
    let versions = database.collection(VERSIONS);
    let found = versions.aggregate(sum).with_type::<RawDocumentBuf>();
    let mut found = found.session(tx.session()).await?;
    let bytes = match found.next(tx.session()).await {
        Some(row) => parse::<SumDocument>("version", &row?)?.bytes.unsigned_abs(),
        None => 0,
    };
    Ok(Holdings { queued, functions, bytes })
}

/// Fails unless the account may have this version as well.
pub(super) async fn keep_within(
    database: &Database,
    new: &NewVersion,
    bounds: HoldingBounds,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    if bounds == HoldingBounds::default() {
        return Ok(());
    }
    // Written for the sake of another deploy of the account that is accepted meanwhile: both touch
    // one document, so one of them begins again and counts the other.
    let users = database.collection(USERS);
    let touch =
        users.update_one(doc! { "_id": new.user_id.key() }, doc! { "$inc": { "accepted": 1_i64 } });
    if touch.session(tx.session()).await?.matched_count == 0 {
        return Err(StoreError::Missing.into());
    }
    let held = read(database, new.user_id, tx).await?;
    Ok(bounds.admit(held, new)?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddedDocument {
    tree_bytes: i64,
}

/// See [`crate::FunctionStore::trees_added`].
pub(super) async fn trees_added(
    database: &Database,
    user_id: UserId,
    day: i64,
) -> Result<u64, StoreError> {
    let users = database.collection(USERS);
    let on_day = doc! { "_id": user_id.key(), "treeDay": day };
    let found = users.find_one(on_day).projection(doc! { "treeBytes": 1 });
    let Some(found) = database.bounded(found).await? else { return Ok(0) };
    let AddedDocument { tree_bytes } = parse("user", &found)?;
    Ok(tree_bytes.unsigned_abs())
}

pub(super) async fn add_tree(
    database: &Database,
    user_id: UserId,
    day: i64,
    bytes: u64,
) -> Result<(), StoreError> {
    let before = doc! { "$cond": [{ "$eq": ["$treeDay", day] }, "$treeBytes", 0_i64] };
    let added = doc! { "$set": {
        "treeDay": day,
        "treeBytes": { "$add": [before, size(bytes)] },
    } };
    let users = database.collection(USERS);
    let counted = doc! { "_id": user_id.key(), "treeDay": { "$ne": day.saturating_add(1) } };
    let add = users.update_one(counted, vec![added]);
    database.bounded(add).await.map(drop)
}
