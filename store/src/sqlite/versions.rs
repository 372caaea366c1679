//! Versions that are there already: read, served again, sealed under another key.

use cloudserve_protocol::ids::{FunctionId, UserId};
use rusqlite::{Connection, params};

use super::columns::status;
use super::queue;
use super::records::{read_version, version_columns};
use super::statements::{all, execute, one};
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
    one(c, sql, params![id.as_bytes(), user_id.as_bytes(), version], "version", |row| {
        read_version(row, 0)
    })
}

pub(super) fn rollback(
    c: &Connection,
    changes: &mut Vec<Change>,
    user_id: UserId,
    id: FunctionId,
    version: u32,
) -> Result<Rollback, StoreError> {
    let standing = one(
        c,
        "SELECT v.status FROM functions f JOIN versions v ON v.function_id = f.id
             WHERE f.id = ?1 AND f.user_id = ?2 AND v.version = ?3",
        params![id.as_bytes(), user_id.as_bytes(), version],
        "version",
        |row| status(row, 0),
    )?;
    match standing {
        None => return Ok(Rollback::Unknown),
        Some(DeployStatus::Pending | DeployStatus::Deploying | DeployStatus::Failed) => {
            return Ok(Rollback::NotBuilt);
        }
        Some(DeployStatus::Active | DeployStatus::Superseded) => {}
    }
    execute(
        c,
        "UPDATE versions SET status = 'active' WHERE function_id = ?1 AND version = ?2",
        params![id.as_bytes(), version],
    )?;
    execute(
        c,
        "UPDATE functions
         SET active_version = ?2, settled_version = latest_version, deployed_at = ?3,
             updated_at = ?3
         WHERE id = ?1",
        params![id.as_bytes(), version, Timestamp::now().0],
    )?;
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
    all(c, SEALED, params![id, version, page_limit(limit)], "version", |row| {
        Ok(SealedVersion {
            function_id: FunctionId::from_bytes(row.get(0)?),
            version: row.get(1)?,
            env: SealedEnv(row.get(2)?),
        })
    })
}

pub(super) fn replace_env(
    c: &Connection,
    id: FunctionId,
    version: u32,
    old: &SealedEnv,
    new: &SealedEnv,
) -> Result<bool, StoreError> {
    execute(
        c,
        "UPDATE versions SET env = ?4 WHERE function_id = ?1 AND version = ?2 AND env = ?3",
        params![id.as_bytes(), version, old.0, new.0],
    )
    .map(|replaced| replaced == 1)
}
