//! Versions that are there already: read, served again, removed, sealed under another key.

use std::collections::HashMap;

use cloudserve_protocol::ids::{FunctionId, SourceHash, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Binary, Document, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::functions::{VersionKey, read_version, sealed, version_key, versions_of};
use super::queue;
use super::schema::{FUNCTIONS, VERSIONS};
use super::values::{Key, date, parse};
use crate::cursor::page_limit;
use crate::function::{
    BuiltVersion, DeployStatus, Pruned, Rollback, SealedEnv, SealedVersion, StoredSource,
    StoredVersion, Version, only,
};
use crate::pruning::{divide, sharing};
use crate::{Change, StoreError, Timestamp};

pub(super) async fn version(
    database: &Database,
    id: FunctionId,
    version: u32,
) -> Result<Option<Version>, StoreError> {
    let versions = database.collection(VERSIONS);
    let found = versions.find_one(doc! { "_id": version_key(id, version) });
    database.bounded(found).await?.as_ref().map(read_version).transpose()
}

#[derive(Deserialize)]
struct StatusDocument {
    status: DeployStatus,
}

pub(super) async fn rollback(
    database: &Database,
    user_id: UserId,
    id: FunctionId,
    version: u32,
    tx: &mut Transaction,
) -> Result<Rollback, Failed> {
    let functions = database.collection(FUNCTIONS);
    let versions = database.collection(VERSIONS);
    let own = doc! { "_id": id.key(), "user": user_id.key() };
    if functions.find_one(own.clone()).session(tx.session()).await?.is_none() {
        return Ok(Rollback::Unknown);
    }
    let this = doc! { "_id": version_key(id, version) };
    let standing = versions.find_one(this.clone()).projection(doc! { "status": 1 });
    let Some(found) = standing.session(tx.session()).await? else {
        return Ok(Rollback::Unknown);
    };
    let StatusDocument { status } = parse("version", &found)?;
    match status {
        DeployStatus::Pending | DeployStatus::Deploying | DeployStatus::Failed => {
            return Ok(Rollback::NotBuilt);
        }
        DeployStatus::Active | DeployStatus::Superseded => {}
    }
    let active = doc! { "$set": { "status": "active" } };
    versions.update_one(this, active).session(tx.session()).await?;
    let now = date(Timestamp::now());
    let moved = doc! { "$set": {
        "activeVersion": { "$literal": i64::from(version) },
        "settledVersion": "$latestVersion",
        "deployedAt": now,
        "updatedAt": now,
    } };
    functions.update_one(own, vec![moved]).session(tx.session()).await?;
    // What waits is no longer served when it is built, so nothing comes with it.
    queue::settle_visibility(database, id, tx).await?;
    tx.announce(Change::Function(id));
    Ok(Rollback::Moved)
}

/// Not the source, which may hold a large lock file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StandingDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
    status: DeployStatus,
    source_hash: SourceHash,
    built: Option<BuiltVersion>,
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

pub(super) async fn prune(
    database: &Database,
    id: FunctionId,
    keep: u32,
    tx: &mut Transaction,
) -> Result<Pruned, Failed> {
    let functions = database.collection(FUNCTIONS);
    let versions = database.collection(VERSIONS);
    let function = doc! { "_id": id.key() };
    let pointer = functions.find_one(function.clone()).projection(doc! { "activeVersion": 1 });
    let Some(found) = pointer.session(tx.session()).await? else {
        return Ok(Pruned::default());
    };
    let PointerDocument { active_version } = parse("function", &found)?;
    let standing = doc! { "status": 1, "sourceHash": 1, "built": 1 };
    let found = versions.find(versions_of(id)).projection(standing).sort(doc! { "_id": -1 });
    let mut found = found.session(tx.session()).await?;
    let mut all = Vec::new();
    while let Some(row) = found.next(tx.session()).await {
        let StandingDocument { id, status, source_hash, built } = parse("version", &row?)?;
        all.push((status, StoredVersion { version: id.version, source_hash, source: None, built }));
    }
    let mut pruned = divide(all, active_version, keep);
    if pruned.removed.is_empty() {
        return Ok(pruned);
    }
    find_sources(database, id, &mut pruned, tx).await?;
    // Written for the sake of a deploy that is accepted meanwhile: it and this touch one document,
    // so one of them begins again and sees the other.
    let touched = doc! { "$set": { "prunedAt": date(Timestamp::now()) } };
    functions.update_one(function, touched).session(tx.session()).await?;
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

/// Not the source, which may hold a large lock file.
#[derive(Deserialize)]
struct SealedDocument {
    #[serde(rename = "_id")]
    id: VersionKey,
    env: Binary,
}

pub(super) async fn sealed_envs(
    database: &Database,
    after: Option<(FunctionId, u32)>,
    limit: u32,
) -> Result<Vec<SealedVersion>, StoreError> {
    let mut filter = doc! { "$expr": { "$gt": [{ "$binarySize": "$env" }, 0] } };
    if let Some((id, version)) = after {
        filter.insert("_id", doc! { "$gt": version_key(id, version) });
    }
    let versions = database.collection(VERSIONS);
    let read = async {
        versions
            .find(filter)
            .projection(doc! { "env": 1 })
            .sort(doc! { "_id": 1 })
            .limit(page_limit(limit).into())
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| {
                let SealedDocument { id, env } = parse("version", &row)?;
                Ok(SealedVersion {
                    function_id: FunctionId::of(id.function_id),
                    version: id.version,
                    env: SealedEnv(env.bytes),
                })
            })
            .try_collect()
            .await
    };
    database.bounded(read).await
}

pub(super) async fn replace_env(
    database: &Database,
    id: FunctionId,
    version: u32,
    old: &SealedEnv,
    new: &SealedEnv,
) -> Result<bool, StoreError> {
    let versions = database.collection(VERSIONS);
    let is_still = doc! { "_id": version_key(id, version), "env": sealed(old) };
    let update = versions.update_one(is_still, doc! { "$set": { "env": sealed(new) } });
    Ok(database.bounded(update).await?.matched_count == 1)
}
