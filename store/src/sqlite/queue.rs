//! The deploy queue: versions that are pending or deploying. Every function here runs inside a
//! transaction of the one writer, which is what makes a claim have a single winner and an
//! activation a compare-and-swap.

use std::time::Duration;

use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{FunctionId, UserId};
use rusqlite::{Connection, params};

use super::columns::{
    parsed, reading, status, status_text, storage_failed, to_json, visibility_text,
};
use super::records::{
    FUNCTION_COLUMNS, VERSION_COLUMNS, function_columns, read_function, read_version,
    version_columns,
};
use super::statements::{execute, one};
use crate::function::{
    Activation, BuiltVersion, Claimed, DeployError, DeployStatus, NewVersion, Visibility,
};
use crate::{Change, StoreError, Timestamp};

/// Oldest first. The second condition repeats that of the index `versions_queue`, word for word:
/// only so does SQLite see that the index covers it.
pub(super) const NEXT_IN_QUEUE: &str = "SELECT function_id, version FROM versions
     WHERE (status = 'pending' OR lease_until <= ?1) AND status IN ('pending', 'deploying')
     ORDER BY created_at, function_id, version LIMIT 1";

/// The same of accounts with nothing in work. `CROSS`: the queue is small, so it is what is walked.
pub(super) const NEXT_OF_THE_IDLE: &str = "SELECT v.function_id, v.version
     FROM versions v CROSS JOIN functions f ON f.id = v.function_id
     WHERE (v.status = 'pending' OR v.lease_until <= ?1) AND v.status IN ('pending', 'deploying')
         AND f.user_id NOT IN (
             SELECT o.user_id FROM versions w CROSS JOIN functions o ON o.id = w.function_id
             WHERE w.status = 'deploying' AND w.lease_until > ?1
                 AND w.status IN ('pending', 'deploying'))
     ORDER BY v.created_at, v.function_id, v.version LIMIT 1";

/// Walks the queue, too: an account may have any number of functions.
pub(super) const QUEUED: &str = "SELECT count(*)
     FROM versions v CROSS JOIN functions f ON f.id = v.function_id
     WHERE v.status IN ('pending', 'deploying') AND f.user_id = ?1";

pub(super) fn queued(c: &Connection, user_id: UserId) -> Result<u32, StoreError> {
    c.prepare_cached(QUEUED)
        .and_then(|mut query| query.query_row([user_id.as_bytes()], |row| row.get(0)))
        .map_err(reading("version"))
}

/// Whether a function that is there becomes public with this new version of it.
pub(super) fn makes_public(c: &Connection, new: &NewVersion) -> Result<bool, StoreError> {
    if new.visibility == Some(Visibility::Private) {
        settle_visibility(c, new.function_id)?;
    }
    Ok(new.visibility == Some(Visibility::Public))
}

/// Lets no version that waits change who may call the function.
pub(super) fn settle_visibility(c: &Connection, id: FunctionId) -> Result<(), StoreError> {
    execute(
        c,
        "UPDATE versions SET makes_public = 0
         WHERE function_id = ?1 AND status IN ('pending', 'deploying') AND makes_public",
        [id.as_bytes()],
    )
    .map(drop)
}

const CLAIMED: &str = concat!(
    "SELECT ",
    function_columns!(),
    ", ",
    version_columns!("v"),
    ", u.user_name, v.attempts
     FROM versions v
     JOIN functions f ON f.id = v.function_id
     JOIN users u ON u.id = f.user_id
     JOIN versions l ON l.function_id = f.id AND l.version = f.latest_version
     WHERE v.function_id = ?1 AND v.version = ?2"
);

pub(super) fn claim(
    c: &Connection,
    changes: &mut Vec<Change>,
    holder: &str,
    lease: Duration,
) -> Result<Option<Claimed>, StoreError> {
    let now = Timestamp::now();
    loop {
        let next = match find(c, NEXT_OF_THE_IDLE, now)? {
            None => find(c, NEXT_IN_QUEUE, now)?,
            found => found,
        };
        let Some((id, version)) = next else { return Ok(None) };
        match take(c, id, version, holder, now.after(lease)) {
            Err(StoreError::Corrupt { source, .. }) => {
                let error = Chain(&*source);
                tracing::error!(function = %id, version, %error, "unreadable deploy");
                fail(c, changes, id, version, &DeployError::unreadable())?;
            }
            taken => return taken.map(Some),
        }
    }
}

fn find(
    c: &Connection,
    sql: &str,
    now: Timestamp,
) -> Result<Option<(FunctionId, u32)>, StoreError> {
    one(c, sql, [now.0], "version", |row| Ok((FunctionId::from_bytes(row.get(0)?), row.get(1)?)))
}

fn take(
    c: &Connection,
    id: FunctionId,
    version: u32,
    holder: &str,
    until: Timestamp,
) -> Result<Claimed, StoreError> {
    execute(
        c,
        "UPDATE versions SET status = 'deploying', lease_holder = ?3, lease_until = ?4,
                attempts = attempts + 1
         WHERE function_id = ?1 AND version = ?2",
        params![id.as_bytes(), version, holder, until.0],
    )?;
    c.prepare_cached(CLAIMED)
        .and_then(|mut query| {
            query.query_row(params![id.as_bytes(), version], |row| {
                Ok(Claimed {
                    function: read_function(row)?,
                    version: read_version(row, FUNCTION_COLUMNS)?,
                    owner_name: parsed(row, FUNCTION_COLUMNS + VERSION_COLUMNS)?,
                    attempt: row.get(FUNCTION_COLUMNS + VERSION_COLUMNS + 1)?,
                })
            })
        })
        .map_err(reading("version"))
}

pub(super) fn renew(
    c: &Connection,
    holder: &str,
    id: FunctionId,
    version: u32,
    lease: Duration,
) -> Result<bool, StoreError> {
    let until = Timestamp::now().after(lease);
    execute(
        c,
        "UPDATE versions SET lease_until = ?4
         WHERE function_id = ?1 AND version = ?2 AND lease_holder = ?3 AND status = 'deploying'",
        params![id.as_bytes(), version, holder, until.0],
    )
    .map(|renewed| renewed == 1)
}

/// Where a version stands, and whether the function becomes public with it: because it says so, or one
/// before it that still waits and is overtaken. One that failed says nothing any more.
pub(super) const STANDING: &str = "SELECT status, EXISTS (
         SELECT 1 FROM versions
         WHERE function_id = ?1 AND version <= ?2 AND status IN ('pending', 'deploying')
             AND makes_public)
     FROM versions WHERE function_id = ?1 AND version = ?2";

pub(super) fn activate(
    c: &Connection,
    changes: &mut Vec<Change>,
    id: FunctionId,
    version: u32,
    built: &BuiltVersion,
) -> Result<Activation, StoreError> {
    let (active, settled): (Option<u32>, u32) = match one(
        c,
        "SELECT active_version, settled_version FROM functions WHERE id = ?1",
        [id.as_bytes()],
        "function",
        |row| Ok((row.get(0)?, row.get(1)?)),
    )? {
        None => return Ok(Activation::Gone),
        Some(found) => found,
    };
    let (standing, makes_public): (DeployStatus, bool) =
        one(c, STANDING, params![id.as_bytes(), version], "version", |row| {
            Ok((status(row, 0)?, row.get(1)?))
        })?
        .ok_or(StoreError::Missing)?;
    let overtaken = settled >= version;
    match standing {
        DeployStatus::Active if active == Some(version) => return Ok(Activation::Activated),
        DeployStatus::Active | DeployStatus::Superseded => return Ok(Activation::Superseded),
        // Given up by another builder, and told to the owner: that stands.
        DeployStatus::Failed => return Err(StoreError::Conflict),
        DeployStatus::Pending | DeployStatus::Deploying => {}
    }

    let (built, bytes) = (to_json(built)?, built.bytes());
    let end = if overtaken { DeployStatus::Superseded } else { DeployStatus::Active };
    execute(
        c,
        "UPDATE versions SET status = ?3, built = ?4, lease_holder = NULL, lease_until = NULL,
                makes_public = 0, bytes = bytes + iif(built IS NULL, ?5, 0)
         WHERE function_id = ?1 AND version = ?2",
        params![id.as_bytes(), version, status_text(end), built, bytes],
    )?;
    // Whoever waits for this deploy to end learns of it either way.
    changes.push(Change::Function(id));
    if overtaken {
        return Ok(Activation::Superseded);
    }
    let visibility = makes_public.then_some(visibility_text(Visibility::Public));
    execute(
        c,
        "UPDATE functions
         SET active_version = ?2, settled_version = ?2, deployed_at = ?3, updated_at = ?3,
             visibility = coalesce(?4, visibility)
         WHERE id = ?1",
        params![id.as_bytes(), version, Timestamp::now().0, visibility],
    )?;
    Ok(Activation::Activated)
}

pub(super) fn fail(
    c: &Connection,
    changes: &mut Vec<Change>,
    id: FunctionId,
    version: u32,
    error: &DeployError,
) -> Result<(), StoreError> {
    let error = to_json(error)?;
    let failed = execute(
        c,
        "UPDATE versions
             SET status = 'failed', error = ?3, lease_holder = NULL, lease_until = NULL,
                 makes_public = 0
             WHERE function_id = ?1 AND version = ?2 AND status IN ('pending', 'deploying')",
        params![id.as_bytes(), version, error],
    )?;
    if failed == 1 {
        execute(
            c,
            "UPDATE functions SET updated_at = ?2 WHERE id = ?1",
            params![id.as_bytes(), Timestamp::now().0],
        )?;
        changes.push(Change::Function(id));
    }
    Ok(())
}

/// Walks the queue, which is said as in [`NEXT_IN_QUEUE`]: a start does not take longer the more
/// versions there are.
pub(super) const RELEASE_LEASES: &str = "UPDATE versions SET lease_until = 0
     WHERE status = 'deploying' AND status IN ('pending', 'deploying')";

/// Ends every lease, so that what a dead process had claimed can be claimed at once.
pub(super) fn release_leases(c: &Connection) -> Result<(), StoreError> {
    c.execute(RELEASE_LEASES, []).map(drop).map_err(storage_failed)
}
