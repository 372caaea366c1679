//! What an account has of functions and versions.

use cloudserve_protocol::ids::UserId;
use rusqlite::Connection;

use super::columns::reading;
use super::queue;
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
