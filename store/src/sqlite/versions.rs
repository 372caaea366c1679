//! Versions that are there already: read, served again, sealed under another key.

use cloudserve_protocol::ids::{FunctionId, UserId};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{reading, status, storage_failed};
use super::functions::{read_version, version_columns};
use super::queue;
use crate::cursor::page_limit;
use crate::function::{DeployStatus, Rollback, SealedEnv, SealedVersion, Version};
use crate::{Change, StoreError, Timestamp};

pub(super) fn version(
    c: &Connection,
    user_id: UserId,
    id: FunctionId,
    version: u32,
) -> Result<Option<Version>, StoreError> {
    let sql = concat!(
        "SELECT ",
        version_columns!("v"),
        " FROM functions f JOIN versions v ON v.function_id = f.id
         WHERE f.id = ?1 AND f.user_id = ?2 AND v.version = ?3"
    );
    c.prepare_cached(sql)
        .and_then(|mut query| {
            query
                .query_row(params![id.as_bytes(), user_id.as_bytes(), version], |row| {
                    read_version(row, 0)
                })
                .optional()
        })
        .map_err(reading("version"))
}

pub(super) fn rollback(
    c: &Connection,
    changes: &mut Vec<Change>,
    user_id: UserId,
    id: FunctionId,
    version: u32,
) -> Result<Rollback, StoreError> {
    let standing = c
        .prepare_cached(
            "SELECT v.status FROM functions f JOIN versions v ON v.function_id = f.id
             WHERE f.id = ?1 AND f.user_id = ?2 AND v.version = ?3",
        )
        .and_then(|mut query| {
            query
                .query_row(params![id.as_bytes(), user_id.as_bytes(), version], |row| {
                    status(row, 0)
                })
                .optional()
        })
        .map_err(reading("version"))?;
    match standing {
        None => return Ok(Rollback::Unknown),
        Some(DeployStatus::Pending | DeployStatus::Deploying | DeployStatus::Failed) => {
            return Ok(Rollback::NotBuilt);
        }
        Some(DeployStatus::Active | DeployStatus::Superseded) => {}
    }
    c.prepare_cached(
        "UPDATE versions SET status = 'active' WHERE function_id = ?1 AND version = ?2",
    )
    .and_then(|mut update| update.execute(params![id.as_bytes(), version]))
    .map_err(storage_failed)?;
    c.prepare_cached(
        "UPDATE functions
         SET active_version = ?2, settled_version = latest_version, deployed_at = ?3,
             updated_at = ?3
         WHERE id = ?1",
    )
    .and_then(|mut update| update.execute(params![id.as_bytes(), version, Timestamp::now().0]))
    .map_err(storage_failed)?;
    // What waits is no longer served when it is built, so nothing comes with it.
    queue::settle_visibility(c, id)?;
    changes.push(Change::Function(id));
    Ok(Rollback::Moved)
}

/// Walks the primary key of `versions`.
pub(super) const SEALED: &str = "SELECT function_id, version, env FROM versions
     WHERE (function_id, version) > (?1, ?2) AND length(env) > 0
     ORDER BY function_id, version LIMIT ?3";

pub(super) fn sealed_envs(
    c: &Connection,
    after: Option<(FunctionId, u32)>,
    limit: u32,
) -> Result<Vec<SealedVersion>, StoreError> {
    let (id, version) = after.map_or(([0; 16], 0), |(id, version)| (*id.as_bytes(), version));
    let mut query = c.prepare_cached(SEALED).map_err(storage_failed)?;
    query
        .query_map(params![id, version, page_limit(limit)], |row| {
            Ok(SealedVersion {
                function_id: FunctionId::from_bytes(row.get(0)?),
                version: row.get(1)?,
                env: SealedEnv(row.get(2)?),
            })
        })
        .and_then(Iterator::collect)
        .map_err(reading("version"))
}

pub(super) fn replace_env(
    c: &Connection,
    id: FunctionId,
    version: u32,
    old: &SealedEnv,
    new: &SealedEnv,
) -> Result<bool, StoreError> {
    c.prepare_cached(
        "UPDATE versions SET env = ?4 WHERE function_id = ?1 AND version = ?2 AND env = ?3",
    )
    .and_then(|mut update| update.execute(params![id.as_bytes(), version, old.0, new.0]))
    .map(|replaced| replaced == 1)
    .map_err(storage_failed)
}
