//! Versions that are there already: read, served again, sealed under another key.

use cloudserve_protocol::ids::{FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Binary, doc};
use serde::Deserialize;

use super::database::{Database, Failed, Transaction};
use super::documents::{VersionKey, read_version, sealed, version_key};
use super::queue;
use super::schema::{FUNCTIONS, VERSIONS};
use super::values::{Key, date, parse};
use crate::cursor::page_limit;
use crate::function::{DeployStatus, Rollback, SealedEnv, SealedVersion, Version};
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
