//! Statements: each is prepared once for a connection, and its errors are told as the store's.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::columns::{inserting, reading, storage_failed};
use crate::StoreError;

/// Runs a statement; says how many rows it changed.
pub(super) fn execute(c: &Connection, sql: &str, values: impl Params) -> Result<usize, StoreError> {
    let changed = c.prepare_cached(sql).and_then(|mut statement| statement.execute(values));
    changed.map_err(storage_failed)
}

/// Runs an insert that passes over what is there already; says whether it added its row.
pub(super) fn insert_new(
    c: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<bool, StoreError> {
    let added = c.prepare_cached(sql).and_then(|mut insert| insert.execute(values));
    Ok(added.map_err(inserting)? > 0)
}

/// The row that a query finds, if it finds one: a record of this kind.
pub(super) fn one<T>(
    c: &Connection,
    sql: &str,
    values: impl Params,
    kind: &'static str,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    c.prepare_cached(sql)
        .and_then(|mut query| query.query_row(values, read).optional())
        .map_err(reading(kind))
}

/// All rows that a query finds: records of this kind.
pub(super) fn all<T>(
    c: &Connection,
    sql: &str,
    values: impl Params,
    kind: &'static str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut query = c.prepare_cached(sql).map_err(storage_failed)?;
    query.query_map(values, read).and_then(Iterator::collect).map_err(reading(kind))
}
