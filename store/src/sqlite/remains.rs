//! What may be stored of functions that are not there.

use std::time::Duration;

use cloudserve_protocol::ids::FunctionId;
use rusqlite::{Connection, params};

use super::columns::storage_failed;
use super::statements::{execute, one};
use crate::{StoreError, Timestamp};

pub(super) fn note(c: &Connection, id: FunctionId) -> Result<(), StoreError> {
    execute(
        c,
        "INSERT INTO remains (function_id, noted_at) VALUES (?1, ?2)
         ON CONFLICT (function_id) DO UPDATE SET noted_at = excluded.noted_at",
        params![id.as_bytes(), Timestamp::now().0],
    )
    .map(drop)
}

pub(super) fn forget(c: &Connection, id: FunctionId) -> Result<(), StoreError> {
    execute(c, "DELETE FROM remains WHERE function_id = ?1", [id.as_bytes()]).map(drop)
}

pub(super) const OLDEST: &str = "SELECT function_id FROM remains WHERE noted_at <= ?1
     ORDER BY noted_at LIMIT 1";

/// See [`crate::FunctionStore::remains`].
pub(super) fn take(c: &Connection, age: Duration) -> Result<Option<FunctionId>, StoreError> {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let until = Timestamp::now().0.saturating_sub(age_ms);
    loop {
        let oldest =
            one(c, OLDEST, [until], "function", |row| Ok(FunctionId::from_bytes(row.get(0)?)))?;
        let Some(id) = oldest else { return Ok(None) };
        if !is_there(c, id)? {
            note(c, id)?;
            return Ok(Some(id));
        }
        // It came with an import.
        forget(c, id)?;
    }
}

fn is_there(c: &Connection, id: FunctionId) -> Result<bool, StoreError> {
    c.prepare_cached("SELECT 1 FROM functions WHERE id = ?1")
        .and_then(|mut query| query.exists([id.as_bytes()]))
        .map_err(storage_failed)
}

/// Makes all of it old: what a process that is dead was about to do, nobody does any more.
pub(super) fn release(c: &Connection) -> Result<(), StoreError> {
    c.execute("UPDATE remains SET noted_at = 0", []).map(drop).map_err(storage_failed)
}
