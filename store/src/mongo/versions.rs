//! Versions that are there already: read, served again, removed, sealed under another key.

use cloudserve_protocol::ids::{FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::functions::{read_version, sealed, version_key, versions_of};
use super::schema::{FUNCTIONS, VERSIONS};
use super::values::{Key, date, parse};
use crate::cursor::page_limit;
use crate::function::{DeployStatus, Pruned, Rollback, SealedEnv, SealedVersion, Version};
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
    tx.announce(Change::Function(id));
    Ok(Rollback::Moved)
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
    let all = versions.find(versions_of(id)).sort(doc! { "_id": -1 });
    let mut all = all.session(tx.session()).await?;
    let keep = keep.max(1) as usize;
    let mut pruned = Pruned::default();
    while let Some(row) = all.next(tx.session()).await {
        let version = read_version(&row?)?;
        if matches!(version.status, DeployStatus::Pending | DeployStatus::Deploying) {
            return Ok(Pruned::default());
        }
        let place = pruned.kept.len() + pruned.removed.len();
        if place < keep || active_version == Some(version.version) {
            pruned.kept.push(version);
        } else {
            pruned.removed.push(version);
        }
    }
    if pruned.removed.is_empty() {
        return Ok(Pruned::default());
    }
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
            .sort(doc! { "_id": 1 })
            .limit(page_limit(limit).into())
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| {
                let version = read_version(&row)?;
                Ok(SealedVersion {
                    function_id: version.function_id,
                    version: version.version,
                    env: version.env,
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
