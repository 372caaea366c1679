//! What an account has of functions and versions.

use cloudserve_protocol::ids::UserId;
use rusqlite::{Connection, params};

use super::columns::reading;
use super::queue;
use super::statements::{execute, one};
use crate::StoreError;
use crate::function::{HoldingBounds, Holdings, NewVersion};

/// Functions, and what their versions take.
pub(super) const HELD: &str = "SELECT count(*), (
         SELECT coalesce(sum(v.bytes), 0)
         FROM functions f CROSS JOIN versions v ON v.function_id = f.id
         WHERE f.user_id = ?1)
     FROM functions WHERE user_id = ?1";

pub(super) fn read(c: &Connection, user_id: UserId) -> Result<Holdings, StoreError> {
    let queued = queue::queued(c, user_id)?;
    c.prepare_cached(HELD)
        .and_then(|mut query| {
            query.query_row([user_id.as_bytes()], |row| {
                let bytes = row.get::<_, i64>(1)?.unsigned_abs();
                Ok(Holdings { queued, functions: row.get(0)?, bytes })
            })
        })
        .map_err(reading("function"))
}

/// Fails unless the account may have this version as well.
pub(super) fn keep_within(
    c: &Connection,
    new: &NewVersion,
    bounds: HoldingBounds,
) -> Result<(), StoreError> {
    if bounds == HoldingBounds::default() {
        return Ok(());
    }
    bounds.admit(read(c, new.user_id)?, new)
}

/// See [`crate::FunctionStore::trees_added`].
pub(super) fn trees_added(c: &Connection, user_id: UserId, day: i64) -> Result<u64, StoreError> {
    let sql = "SELECT bytes FROM trees_added WHERE user_id = ?1 AND day = ?2";
    let added: Option<i64> =
        one(c, sql, params![user_id.as_bytes(), day], "user", |row| row.get(0))?;
    Ok(added.unwrap_or_default().unsigned_abs())
}

pub(super) fn add_tree(
    c: &Connection,
    user_id: UserId,
    day: i64,
    bytes: u64,
) -> Result<(), StoreError> {
    execute(
        c,
        "INSERT INTO trees_added (user_id, day, bytes) SELECT id, ?2, ?3 FROM users WHERE id = ?1
         ON CONFLICT (user_id) DO UPDATE
         SET bytes = iif(day = excluded.day, bytes, 0) + excluded.bytes, day = excluded.day
         WHERE day <> excluded.day + 1",
        params![user_id.as_bytes(), day, bytes],
    )
    .map(drop)
}
