//! The audit trail in `meta.db`.

use cloudserve_protocol::ids::{AuditId, UserId};
use rusqlite::{Connection, Row, params};

use super::columns::{json, time, to_json};
use super::statements::{all, execute, insert_new};
use crate::StoreError;
use crate::account::AuditEntry;
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::Page;

/// Removes what is older than the oldest of an account's newest entries that stay; the second value is
/// how many are newer than that one.
pub(super) const SURPLUS: &str = "DELETE FROM audit WHERE user_id = ?1 AND (at, id) <
         (SELECT at, id FROM audit WHERE user_id = ?1
          ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?2)";

/// Adds an entry; what is too old goes with it, and what is more than may be.
pub(super) fn record(
    c: &Connection,
    entry: &AuditEntry,
    max_entries: u32,
) -> Result<(), StoreError> {
    if !insert(c, entry)? {
        return Err(StoreError::Conflict);
    }
    let oldest = entry.oldest_kept();
    execute(
        c,
        "DELETE FROM audit WHERE user_id = ?1 AND at < ?2",
        params![entry.user_id.as_bytes(), oldest.0],
    )?;
    execute(c, SURPLUS, params![entry.user_id.as_bytes(), max_entries.saturating_sub(1)])?;
    Ok(())
}

/// Adds an entry, unless its id is there; says whether it did.
pub(super) fn insert(c: &Connection, entry: &AuditEntry) -> Result<bool, StoreError> {
    let sql = "INSERT INTO audit (id, user_id, actor, action, subject, detail, at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    let values = params![
        entry.id.as_bytes(),
        entry.user_id.as_bytes(),
        to_json(&entry.actor)?,
        entry.action,
        entry.subject,
        entry.detail,
        entry.at.0,
    ];
    insert_new(c, sql, values)
}

pub(super) const AUDIT: &str = "SELECT id, user_id, actor, action, subject, detail, at
     FROM audit WHERE user_id = ?1 AND (at, id) < (?2, ?3)
     ORDER BY at DESC, id DESC LIMIT ?4";

/// A page, newest first.
pub(super) fn read(
    c: &Connection,
    user_id: UserId,
    limit: u32,
    from: Cursor,
) -> Result<Page<AuditEntry>, StoreError> {
    let limit = page_limit(limit);
    let one_more = i64::from(limit) + 1;
    let rows = all(
        c,
        AUDIT,
        params![user_id.as_bytes(), from.time.0, from.id, one_more],
        "audit entry",
        read_entry,
    )?;
    let (items, next) = finish_page(rows, limit, |entry: &AuditEntry| Cursor {
        time: entry.at,
        id: *entry.id.as_bytes(),
    });
    Ok(Page { items, next })
}

pub(super) fn read_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: AuditId::from_bytes(row.get(0)?),
        user_id: UserId::from_bytes(row.get(1)?),
        actor: json(row, 2)?,
        action: row.get(3)?,
        subject: row.get(4)?,
        detail: row.get(5)?,
        at: time(row, 6)?,
    })
}
