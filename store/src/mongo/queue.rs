//! The deploy queue: versions that have `queuedAt`.
//!
//! A claim is a transaction that writes the version and its account, so it has a single winner
//! whichever processes ask, and accounts take turns whoever asks at the same time. Leases are by the
//! clock of the database: processes whose clocks differ agree on which have run out.

use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{FunctionId, UserId, UserName};
use mongodb::bson::{Bson, Document, RawDocumentBuf, Uuid, deserialize_from_slice, doc};
use mongodb::options::ReturnDocument;
use serde::Deserialize;

use super::database::{Database, Failed, Transaction, in_transaction};
use super::documents::{VersionDocument, VersionKey, version_key, versions_of};
use super::functions::MongoFunctions;
use super::schema::{FUNCTIONS, USERS, VERSIONS};
use super::values::{Key, date, field, parse, size};
use crate::function::{
    Activation, BuiltVersion, Claimed, DeployError, DeployStatus, NewVersion, Version, Visibility,
};
use crate::{Change, StoreError, Timestamp};

/// When a lease that begins now ends.
pub(super) fn lease_end(lease: Duration) -> Document {
    let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    doc! { "$add": ["$$NOW", lease_ms] }
}

/// What an account has in the queue, as the index by account finds it.
fn queued_by(user_id: UserId) -> Document {
    doc! {
        "status": { "$in": ["pending", "deploying"] },
        "queuedBy": user_id.key(),
        "queuedAt": { "$exists": true },
    }
}

/// How much that is.
pub(super) async fn queued(
    database: &Database,
    user_id: UserId,
    tx: &mut Transaction,
) -> Result<u32, Failed> {
    let versions = database.collection(VERSIONS);
    let count = versions.count_documents(queued_by(user_id));
    let count = count.session(tx.session()).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Whether a function that is there becomes public with this new version of it.
pub(super) async fn makes_public(
    database: &Database,
    new: &NewVersion,
    tx: &mut Transaction,
) -> Result<bool, Failed> {
    if new.visibility == Some(Visibility::Private) {
        settle_visibility(database, new.function_id, tx).await?;
    }
    Ok(new.visibility == Some(Visibility::Public))
}

/// Whether the function becomes public with this version when it is served: because it says so, or one
/// before it that still waits and is overtaken. One that failed says nothing any more.
async fn opens(
    database: &Database,
    id: FunctionId,
    version: u32,
    tx: &mut Transaction,
) -> Result<bool, Failed> {
    let opening = doc! {
        "_id": { "$gte": version_key(id, 0), "$lte": version_key(id, version) },
        "status": { "$in": ["pending", "deploying"] },
        "makesPublic": true,
    };
    let versions = database.collection(VERSIONS);
    let found = versions.find_one(opening).projection(doc! { "_id": 1 });
    Ok(found.session(tx.session()).await?.is_some())
}

/// Lets no version that waits change who may call the function.
pub(super) async fn settle_visibility(
    database: &Database,
    id: FunctionId,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let mut opening = versions_of(id);
    opening.insert("makesPublic", true);
    let versions = database.collection(VERSIONS);
    let settle = versions.update_many(opening, doc! { "$unset": { "makesPublic": 1 } });
    settle.session(tx.session()).await?;
    Ok(())
}

/// What a version has only while it waits or is in work.
fn left_behind() -> Document {
    doc! {
        "queuedAt": 1, "queuedBy": 1, "makesPublic": 1, "leaseHolder": 1, "leaseUntil": 1,
        "making": 1, "sweeps": 1,
    }
}

/// Whether there is anything to claim: most who ask find nothing, and need no transaction for it.
async fn is_empty(database: &Database) -> Result<bool, StoreError> {
    let versions = database.collection(VERSIONS);
    let any = versions.find_one(is_free()).projection(doc! { "_id": 1 });
    Ok(database.bounded(any).await?.is_none())
}

pub(super) async fn claim(
    store: &MongoFunctions,
    holder: &str,
    lease: Duration,
) -> Result<Option<Claimed>, StoreError> {
    let database = &store.database;
    while !is_empty(database).await? {
        let taken = in_transaction!(database, |tx| take_in_turn(database, holder, lease, &mut tx))?;
        // Others were faster.
        let Some(found) = taken else { return Ok(None) };
        match claimed(store, &found).await {
            Ok(Some(claimed)) => return Ok(Some(claimed)),
            // Deleted since.
            Ok(None) => {}
            Err(StoreError::Corrupt { source, .. }) => {
                tracing::error!(error = %Chain(&*source), "unreadable deploy");
                give_up(store, &found).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The oldest version of accounts with nothing in work; if there is none, the oldest.
async fn take_in_turn(
    database: &Database,
    holder: &str,
    lease: Duration,
    tx: &mut Transaction,
) -> Result<Option<RawDocumentBuf>, Failed> {
    let busy = busy(database, tx).await?;
    let mut taken = None;
    if !busy.is_empty() {
        let of_others = doc! { "queuedBy": { "$nin": busy } };
        taken = take(database, of_others, holder, lease, tx).await?;
    }
    if taken.is_none() {
        taken = take(database, Document::new(), holder, lease, tx).await?;
    }
    // Written for the sake of a claim of another version of the account meanwhile: both touch one
    // document, so one of them begins again and finds the account busy. Of versions that came with an
    // import, or from an earlier release, the account is not known here.
    let owner = taken.as_ref().and_then(|found| parse::<OwnedDocument>("version", found).ok());
    if let Some(user) = owner.and_then(|owned| owned.queued_by) {
        let users = database.collection(USERS);
        let touch = users.update_one(doc! { "_id": user }, doc! { "$inc": { "claimed": 1_i64 } });
        touch.session(tx.session()).await?;
    }
    Ok(taken)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnedDocument {
    queued_by: Option<Uuid>,
}

#[derive(Deserialize)]
struct BusyDocument {
    #[serde(rename = "_id")]
    user: Option<Uuid>,
}

/// Accounts that have something in work.
async fn busy(database: &Database, tx: &mut Transaction) -> Result<Vec<Uuid>, Failed> {
    let in_work = doc! {
        "status": "deploying",
        "queuedAt": { "$exists": true },
        "$expr": { "$gt": ["$leaseUntil", "$$NOW"] },
    };
    let by_account = [doc! { "$match": in_work }, doc! { "$group": { "_id": "$queuedBy" } }];
    let versions = database.collection(VERSIONS);
    let found = versions.aggregate(by_account).with_type::<RawDocumentBuf>();
    let mut found = found.session(tx.session()).await?;
    let mut accounts = Vec::new();
    while let Some(row) = found.next(tx.session()).await {
        accounts.extend(parse::<BusyDocument>("version", &row?)?.user);
    }
    Ok(accounts)
}

/// What is pending, or deploying under a lease that has run out.
fn is_free() -> Document {
    doc! { "$or": [
        { "status": "pending" },
        { "$expr": { "$lte": ["$leaseUntil", "$$NOW"] } },
    ], "queuedAt": { "$exists": true } }
}

/// The oldest that is free, of those that match.
async fn take(
    database: &Database,
    mut filter: Document,
    holder: &str,
    lease: Duration,
    tx: &mut Transaction,
) -> Result<Option<RawDocumentBuf>, Failed> {
    filter.extend(is_free());
    let mark = doc! { "$set": {
        "status": "deploying",
        "leaseHolder": { "$literal": holder },
        "leaseUntil": lease_end(lease),
        "attempts": { "$add": ["$attempts", 1] },
        // Whoever has claimed it will say so.
        "making": { "$ifNull": ["$making", []] },
    } };
    let versions = database.collection(VERSIONS);
    let take = versions
        .find_one_and_update(filter, vec![mark])
        .sort(doc! { "queuedAt": 1, "_id": 1 })
        .return_document(ReturnDocument::After);
    Ok(take.session(tx.session()).await?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerDocument {
    user_name: UserName,
}

async fn claimed(
    store: &MongoFunctions,
    found: &RawDocumentBuf,
) -> Result<Option<Claimed>, StoreError> {
    let version: VersionDocument = parse("version", found)?;
    let attempt = version.attempts;
    let version = Version::from(version);
    let filter = doc! { "_id": version.function_id.key() };
    let Some(record) = store.one_record(filter).await? else { return Ok(None) };
    let users = store.database.collection(USERS);
    let owner = users.find_one(doc! { "_id": record.function.user_id.key() });
    let Some(owner) = store.database.bounded(owner).await? else { return Ok(None) };
    let owner: OwnerDocument = parse("user", &owner)?;
    Ok(Some(Claimed { function: record.function, version, owner_name: owner.user_name, attempt }))
}

#[derive(Deserialize)]
struct KeyDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
}

/// Ends a deploy that cannot be read.
async fn give_up(store: &MongoFunctions, found: &RawDocumentBuf) -> Result<(), StoreError> {
    let error = DeployError::unreadable();
    if let Ok(KeyDocument { id }) = deserialize_from_slice(found.as_bytes()) {
        let function = FunctionId::of(id.function_id);
        return in_transaction!(store.database, |tx| fail(
            store, function, id.version, &error, &mut tx
        ));
    }
    let key = found.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    let key = key.ok_or_else(|| StoreError::corrupt("version", "it has no identity"))?;
    let versions = store.database.collection(VERSIONS);
    let leave = doc! { "$set": { "status": "failed" }, "$unset": left_behind() };
    store.database.bounded(versions.update_one(doc! { "_id": key }, leave)).await.map(drop)
}

pub(super) async fn renew(
    store: &MongoFunctions,
    holder: &str,
    id: FunctionId,
    version: u32,
    lease: Duration,
) -> Result<bool, StoreError> {
    let held = doc! {
        "_id": version_key(id, version), "leaseHolder": holder, "status": "deploying",
    };
    let longer = doc! { "$set": { "leaseUntil": lease_end(lease) } };
    let versions = store.database.collection(VERSIONS);
    let renewed = store.database.bounded(versions.update_one(held, vec![longer])).await?;
    Ok(renewed.matched_count == 1)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PointerDocument {
    active_version: Option<u32>,
    settled_version: u32,
}

#[derive(Deserialize)]
struct StandingDocument {
    status: DeployStatus,
    built: Option<BuiltVersion>,
}

pub(super) async fn activate(
    store: &MongoFunctions,
    id: FunctionId,
    version: u32,
    built: &BuiltVersion,
    tx: &mut Transaction,
) -> Result<Activation, Failed> {
    let functions = store.database.collection(FUNCTIONS);
    let versions = store.database.collection(VERSIONS);
    let function = doc! { "_id": id.key() };
    let pointer = functions
        .find_one(function.clone())
        .projection(doc! { "activeVersion": 1, "settledVersion": 1 });
    let Some(found) = pointer.session(tx.session()).await? else {
        return Ok(Activation::Gone);
    };
    let PointerDocument { active_version, settled_version } = parse("function", &found)?;
    let this = doc! { "_id": version_key(id, version) };
    let standing = versions.find_one(this.clone()).projection(doc! { "status": 1, "built": 1 });
    let found = standing.session(tx.session()).await?.ok_or(StoreError::Missing)?;
    let StandingDocument { status, built: known } = parse("version", &found)?;
    let overtaken = settled_version >= version;
    match status {
        DeployStatus::Active if active_version == Some(version) => {
            return Ok(Activation::Activated);
        }
        DeployStatus::Active | DeployStatus::Superseded => return Ok(Activation::Superseded),
        // Given up by another builder, and told to the owner: that stands.
        DeployStatus::Failed => return Err(StoreError::Conflict.into()),
        DeployStatus::Pending | DeployStatus::Deploying => {}
    }

    let makes_public = !overtaken && opens(&store.database, id, version, tx).await?;
    let end = if overtaken { DeployStatus::Superseded } else { DeployStatus::Active };
    // What was known when it was accepted is counted.
    let more_bytes = if known.is_none() { size(built.bytes()) } else { 0 };
    let ended = doc! {
        "$set": { "status": field(&end)?, "built": field(built)? },
        "$inc": { "bytes": more_bytes },
        "$unset": left_behind(),
    };
    versions.update_one(this, ended).session(tx.session()).await?;
    // Whoever waits for this deploy to end learns of it either way.
    tx.announce(Change::Function(id));
    if overtaken {
        return Ok(Activation::Superseded);
    }
    let now = date(Timestamp::now());
    let mut moved = doc! {
        "activeVersion": i64::from(version),
        "settledVersion": i64::from(version),
        "deployedAt": now,
        "updatedAt": now,
    };
    if makes_public {
        moved.insert("visibility", field(&Visibility::Public)?);
    }
    // Two activations that read the same pointer both write it: one of them begins again.
    let moved = doc! { "$set": moved };
    functions.update_one(function, moved).session(tx.session()).await?;
    Ok(Activation::Activated)
}

pub(super) async fn fail(
    store: &MongoFunctions,
    id: FunctionId,
    version: u32,
    error: &DeployError,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let open = doc! { "_id": version_key(id, version), "queuedAt": { "$exists": true } };
    let ended = doc! {
        "$set": { "status": "failed", "error": field(error)? },
        "$unset": left_behind(),
    };
    let versions = store.database.collection(VERSIONS);
    let failed = versions.update_one(open, ended).session(tx.session()).await?;
    if failed.matched_count == 1 {
        let function = doc! { "_id": id.key() };
        let touched = doc! { "$set": { "updatedAt": date(Timestamp::now()) } };
        let functions = store.database.collection(FUNCTIONS);
        functions.update_one(function, touched).session(tx.session()).await?;
        tx.announce(Change::Function(id));
    }
    Ok(())
}
