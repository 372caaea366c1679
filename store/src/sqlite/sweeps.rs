//! Versions that go, and the sweep that removes the objects they leave.
//!
//! Invariant: a version in work notes a bundle before it stores it, waits then until no sweep is under way,
//! and no sweep removes what was noted before it began. So whoever has noted a bundle and has seen that
//! nothing is removed knows that this one stays until the version has ended.

use std::time::Duration;

use cloudserve_protocol::ids::{BundleHash, FunctionId};
use rusqlite::{Connection, Row, params};

use super::columns::{json, optional_json, parsed, reading, status, storage_failed};
use super::statements::{all, execute, one};
use crate::function::{DeployStatus, Pruned, StoredSource, StoredVersion, Sweep, only};
use crate::pruning::{divide, leaves_objects, sharing};
use crate::{StoreError, Timestamp};

pub(super) fn prune(
    c: &Connection,
    id: FunctionId,
    keep: u32,
    sweep: &Sweep,
) -> Result<Pruned, StoreError> {
    let active: Option<u32> = match one(
        c,
        "SELECT active_version FROM functions WHERE id = ?1",
        [id.as_bytes()],
        "function",
        |row| row.get(0),
    )? {
        None => return Ok(Pruned::default()),
        Some(found) => found,
    };
    let versions: Vec<(DeployStatus, StoredVersion)> = all(
        c,
        // `making` comes after the source in a row, which may be large: it is read of few.
        "SELECT status, version, source_hash, built,
                CASE WHEN status IN ('pending', 'deploying') THEN making END
             FROM versions
             WHERE function_id = ?1 ORDER BY version DESC",
        [id.as_bytes()],
        "version",
        |row| {
            let version = StoredVersion {
                version: row.get(1)?,
                source_hash: parsed(row, 2)?,
                source: None,
                built: optional_json(row, 3)?,
                making: optional_json(row, 4)?.unwrap_or_default(),
            };
            Ok((status(row, 0)?, version))
        },
    )?;
    let mut pruned = divide(versions, active, keep);
    if !leaves_objects(&pruned, sweep) {
        return Ok(pruned);
    }
    if !begin(c, id, sweep)? {
        return Ok(Pruned::default());
    }
    pruned.is_swept = true;
    if pruned.removed.is_empty() {
        return Ok(pruned);
    }
    let mut query = c.prepare_cached(STORED_SOURCE).map_err(storage_failed)?;
    for version in sharing(&mut pruned) {
        let source = query
            .query_row(params![id.as_bytes(), version.version], read_stored_source)
            .map_err(reading("version"))?;
        version.source = Some(source);
    }
    let mut delete = c
        .prepare_cached("DELETE FROM versions WHERE function_id = ?1 AND version = ?2")
        .map_err(storage_failed)?;
    for version in &pruned.removed {
        delete.execute(params![id.as_bytes(), version.version]).map_err(storage_failed)?;
    }
    Ok(pruned)
}

/// Not the lock file. What is no JSON comes as an empty text, which is none either.
const STORED_SOURCE: &str = "SELECT iif(json_valid(source), json_extract(source, '$.storedVersion',
            '$.files[0].path', '$.files[1].path'), '')
     FROM versions WHERE function_id = ?1 AND version = ?2";

fn read_stored_source(row: &Row<'_>) -> rusqlite::Result<StoredSource> {
    type Extracted = (u32, Option<String>, Option<String>);
    let (version, first, second): Extracted = json(row, 0)?;
    Ok(StoredSource { version, only_file: only([first, second].into_iter().flatten()) })
}

/// See [`crate::FunctionStore::note_bundle`].
pub(super) fn note_bundle(
    c: &Connection,
    id: FunctionId,
    version: u32,
    bundle: &BundleHash,
) -> Result<(), StoreError> {
    execute(
        c,
        "UPDATE versions SET making = json_insert(coalesce(making, '[]'), '$[#]', ?3)
         WHERE function_id = ?1 AND version = ?2 AND status = 'deploying'",
        params![id.as_bytes(), version, bundle.as_str()],
    )
    .map(drop)
}

/// `false`: another one is under way.
fn begin(c: &Connection, id: FunctionId, sweep: &Sweep) -> Result<bool, StoreError> {
    let now = Timestamp::now();
    let until = now.after(sweep.lease);
    execute(
        c,
        "INSERT INTO sweeps (function_id, holder, until) VALUES (?1, ?2, ?3)
         ON CONFLICT (function_id) DO UPDATE SET holder = excluded.holder, until = excluded.until
         WHERE until <= ?4",
        params![id.as_bytes(), sweep.holder, until.0, now.0],
    )
    .map(|begun| begun == 1)
}

pub(super) fn end(c: &Connection, id: FunctionId, holder: &str) -> Result<(), StoreError> {
    execute(
        c,
        "DELETE FROM sweeps WHERE function_id = ?1 AND holder = ?2",
        params![id.as_bytes(), holder],
    )
    .map(drop)
}

pub(super) fn is_swept(c: &Connection, id: FunctionId) -> Result<bool, StoreError> {
    c.prepare_cached("SELECT 1 FROM sweeps WHERE function_id = ?1 AND until > ?2")
        .and_then(|mut query| query.exists(params![id.as_bytes(), Timestamp::now().0]))
        .map_err(storage_failed)
}

pub(super) const NEXT_LOOK: &str = "SELECT id FROM functions WHERE looked_at <= ?1
     ORDER BY looked_at LIMIT 1";

/// See [`crate::FunctionStore::next_look`].
pub(super) fn next_look(c: &Connection, age: Duration) -> Result<Option<FunctionId>, StoreError> {
    let now = Timestamp::now();
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let until = now.0.saturating_sub(age_ms);
    let next =
        one(c, NEXT_LOOK, [until], "function", |row| Ok(FunctionId::from_bytes(row.get(0)?)))?;
    if let Some(id) = next {
        let looked = params![id.as_bytes(), now.0];
        execute(c, "UPDATE functions SET looked_at = ?2 WHERE id = ?1", looked)?;
    }
    Ok(next)
}

/// Ends those of a process that is dead.
pub(super) fn release(c: &Connection) -> Result<(), StoreError> {
    c.execute_batch(
        "DELETE FROM sweeps;
         UPDATE trees SET swept_until = 0 WHERE swept_until > 0;",
    )
    .map_err(storage_failed)
}
