//! Versions that go, and the sweep that removes the objects they leave: `sweptBy` and `sweptUntil` of
//! a function. `lookedAt`: when somebody last looked for objects that none refers to.
//!
//! Invariant: a version in work notes a bundle before it stores it, waits then until no sweep is under way,
//! and no sweep removes what was noted before it began. So whoever has noted a bundle and has seen that
//! nothing is removed knows that this one stays until the version has ended.
//! How long one may take is by the clock of the database, as leases are.

use std::collections::HashMap;
use std::time::Duration;

use cloudserve_protocol::ids::{BundleHash, FunctionId, SourceHash};
use mongodb::bson::{Document, RawDocumentBuf, Uuid, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::documents::{VersionKey, version_key, versions_of};
use super::queue::lease_end;
use super::schema::{FUNCTIONS, VERSIONS};
use super::values::{Key, parse};
use crate::StoreError;
use crate::function::{
    BuiltVersion, DeployStatus, Pruned, StoredSource, StoredVersion, Sweep, only,
};
use crate::pruning::{divide, leaves_objects, sharing};

/// Not the source, which may hold a large lock file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StandingDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
    status: DeployStatus,
    source_hash: SourceHash,
    built: Option<BuiltVersion>,
    /// Not there before it is claimed, nor if an earlier release has claimed it.
    making: Option<Vec<BundleHash>>,
}

#[derive(Deserialize)]
struct SourceDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
    source: PlaceDocument,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceDocument {
    stored_version: u32,
    files: Vec<FileDocument>,
}

#[derive(Deserialize)]
struct FileDocument {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PointerDocument {
    active_version: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LookDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    is_due: bool,
}

pub(super) async fn prune(
    database: &Database,
    id: FunctionId,
    keep: u32,
    sweep: &Sweep,
    tx: &mut Transaction,
) -> Result<Pruned, Failed> {
    let functions = database.collection(FUNCTIONS);
    let versions = database.collection(VERSIONS);
    let function = doc! { "_id": id.key() };
    let pointer = functions.find_one(function).projection(doc! { "activeVersion": 1 });
    let Some(found) = pointer.session(tx.session()).await? else {
        return Ok(Pruned::default());
    };
    let PointerDocument { active_version } = parse("function", &found)?;
    let standing = doc! { "status": 1, "sourceHash": 1, "built": 1, "making": 1 };
    let found = versions.find(versions_of(id)).projection(standing).sort(doc! { "_id": -1 });
    let mut found = found.session(tx.session()).await?;
    let (mut all, mut under_way, mut is_all_said) = (Vec::new(), Vec::new(), true);
    while let Some(row) = found.next(tx.session()).await {
        let StandingDocument { id: VersionKey { version, .. }, status, source_hash, built, making } =
            parse("version", &row?)?;
        if status.is_under_way() {
            under_way.push(version_key(id, version));
        }
        is_all_said &= status != DeployStatus::Deploying || making.is_some();
        let making = making.unwrap_or_default();
        all.push((status, StoredVersion { version, source_hash, source: None, built, making }));
    }
    if !is_all_said {
        return Ok(Pruned::default());
    }
    let mut pruned = divide(all, active_version, keep);
    if !leaves_objects(&pruned, sweep) {
        return Ok(pruned);
    }
    if !begin(database, id, sweep, tx).await? {
        return Ok(Pruned::default());
    }
    hold_notes(database, under_way, tx).await?;
    pruned.is_swept = true;
    if pruned.removed.is_empty() {
        return Ok(pruned);
    }
    find_sources(database, id, &mut pruned, tx).await?;
    let keys: Vec<Document> =
        pruned.removed.iter().map(|removed| version_key(id, removed.version)).collect();
    let delete = versions.delete_many(doc! { "_id": { "$in": keys } });
    delete.session(tx.session()).await?;
    Ok(pruned)
}

/// Fills in where the sources are of those versions that may share one.
async fn find_sources(
    database: &Database,
    id: FunctionId,
    pruned: &mut Pruned,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let versions = database.collection(VERSIONS);
    let keys: Vec<Document> =
        sharing(pruned).map(|version| version_key(id, version.version)).collect();
    let place = doc! { "source.storedVersion": 1, "source.files.path": 1 };
    let found = versions.find(doc! { "_id": { "$in": keys } }).projection(place);
    let mut found = found.session(tx.session()).await?;
    let mut sources = HashMap::new();
    while let Some(row) = found.next(tx.session()).await {
        let SourceDocument { id, source } = parse("version", &row?)?;
        let PlaceDocument { stored_version, files } = source;
        let only_file = only(files).map(|file| file.path);
        sources.insert(id.version, StoredSource { version: stored_version, only_file });
    }
    for version in sharing(pruned) {
        version.source = sources.remove(&version.version);
    }
    Ok(())
}

/// Writes what a note of a bundle writes, too. So one that was made since the versions were read has this
/// begin again and see it, and a later one is made when it can be seen that a sweep is under way.
async fn hold_notes(
    database: &Database,
    under_way: Vec<Document>,
    tx: &mut Transaction,
) -> Result<(), Failed> {
    if under_way.is_empty() {
        return Ok(());
    }
    let versions = database.collection(VERSIONS);
    let these = doc! { "_id": { "$in": under_way } };
    let touch = versions.update_many(these, doc! { "$inc": { "sweeps": 1_i64 } });
    touch.session(tx.session()).await?;
    Ok(())
}

/// See [`crate::FunctionStore::note_bundle`].
pub(super) async fn note_bundle(
    database: &Database,
    id: FunctionId,
    version: u32,
    bundle: &BundleHash,
) -> Result<(), StoreError> {
    let in_work = doc! { "_id": version_key(id, version), "status": "deploying" };
    let note = doc! { "$addToSet": { "making": bundle.as_str() } };
    let versions = database.collection(VERSIONS);
    database.bounded(versions.update_one(in_work, note)).await.map(drop)
}

/// `false`: another one is under way. A deploy that is accepted meanwhile writes the same document, so
/// one of the two begins again and sees the other.
async fn begin(
    database: &Database,
    id: FunctionId,
    sweep: &Sweep,
    tx: &mut Transaction,
) -> Result<bool, Failed> {
    // A field that is not there is less than every time.
    let free = doc! { "_id": id.key(), "$expr": { "$lte": ["$sweptUntil", "$$NOW"] } };
    let mark = doc! { "$set": {
        "sweptBy": { "$literal": sweep.holder.as_str() },
        "sweptUntil": lease_end(sweep.lease),
    } };
    let functions = database.collection(FUNCTIONS);
    let begin = functions.update_one(free, vec![mark]);
    Ok(begin.session(tx.session()).await?.matched_count == 1)
}

pub(super) async fn end(
    database: &Database,
    id: FunctionId,
    holder: &str,
) -> Result<(), StoreError> {
    let own = doc! { "_id": id.key(), "sweptBy": holder };
    let functions = database.collection(FUNCTIONS);
    let end = functions.update_one(own, doc! { "$unset": { "sweptBy": 1, "sweptUntil": 1 } });
    database.bounded(end).await.map(drop)
}

pub(super) async fn is_swept(database: &Database, id: FunctionId) -> Result<bool, StoreError> {
    let swept = doc! { "_id": id.key(), "$expr": { "$gt": ["$sweptUntil", "$$NOW"] } };
    let functions = database.collection(FUNCTIONS);
    let found = functions.find_one(swept).projection(doc! { "_id": 1 });
    Ok(database.bounded(found).await?.is_some())
}

/// See [`crate::FunctionStore::next_look`]. How long ago a look was is by the clock of the database, too.
pub(super) async fn next_look(
    database: &Database,
    age: Duration,
    tx: &mut Transaction,
) -> Result<Option<FunctionId>, Failed> {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let functions = database.collection(FUNCTIONS);
    // The first of an index, whether it is due or not: where none is, none is passed over. A field that is
    // not there is less than every time.
    let next = [
        doc! { "$sort": { "lookedAt": 1 } },
        doc! { "$limit": 1 },
        doc! { "$project": {
            "isDue": { "$lte": ["$lookedAt", { "$subtract": ["$$NOW", age_ms] }] },
        } },
    ];
    let found = functions.aggregate(next).with_type::<RawDocumentBuf>();
    let mut found = found.session(tx.session()).await?;
    let Some(row) = found.next(tx.session()).await else { return Ok(None) };
    let LookDocument { id, is_due } = parse("function", &row?)?;
    if !is_due {
        return Ok(None);
    }
    let looked = vec![doc! { "$set": { "lookedAt": "$$NOW" } }];
    functions.update_one(doc! { "_id": id }, looked).session(tx.session()).await?;
    Ok(Some(FunctionId::of(id)))
}
