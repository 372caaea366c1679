//! Logs in `telemetry.db`: newest first by the time of their calls, or as they come in.

use cloudserve_protocol::ids::{ExecutionId, FunctionId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{json, reading, storage_failed, time};
use super::statements::execute;
use super::telemetry::{failed, read_call_status};
use crate::StoreError;
use crate::cursor::{Cursor, page_limit};
use crate::telemetry::{
    Filling, LogPage, LogQuery, LogRow, LogTail, MAX_PAGE_TEXT_BYTES, MAX_SCANNED_ROWS, measured,
};

/// The highest number that a row has, or had.
macro_rules! newest {
    () => {
        "max(coalesce((SELECT max(row_number) FROM logs), 0), (SELECT last FROM log_numbers))"
    };
}

/// Inserts a row that is new, with its lines as JSON.
pub(super) fn insert(c: &Connection, row: &LogRow, lines: &str) -> Result<(), StoreError> {
    execute(
        c,
        concat!(
        "INSERT INTO logs (row_number, execution_id, function_id, timestamp, duration_ms, memory_mb,
                           failed, truncated, lines)
         VALUES (1 + ",
        newest!(),
        ", ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    ),
        params![
            row.execution_id.as_bytes(),
            row.function_id.as_bytes(),
            row.timestamp.0,
            measured(row.duration_ms),
            measured(row.memory_mb),
            failed(row.status),
            row.truncated,
            lines,
        ],
    )
    .map(drop)
}

macro_rules! logs_where {
    ($condition:literal) => {
        concat!(
            "SELECT function_id, execution_id, lines, duration_ms, memory_mb, failed, truncated,
                    timestamp
             FROM logs WHERE function_id = ?1 AND (timestamp, execution_id) < (?2, ?3)",
            $condition,
            " ORDER BY timestamp DESC, execution_id DESC LIMIT ?4"
        )
    };
}

pub(super) const LOGS: &str = logs_where!("");
pub(super) const LOG_OF_CALL: &str = logs_where!(" AND execution_id = ?5");

/// A page, newest first.
pub(super) fn read(c: &Connection, query: &LogQuery, from: Cursor) -> Result<LogPage, StoreError> {
    let sql = match query.execution_id {
        None => LOGS,
        Some(_) => LOG_OF_CALL,
    };
    let mut filling = Filling::of(query);
    let mut select = c.prepare_cached(sql).map_err(storage_failed)?;
    let function_id = query.function_id.as_bytes();
    let n_rows = filling.n_asked_for();
    let position = params![function_id, from.time.0, from.id, n_rows];
    let found = match &query.execution_id {
        None => select.query(position),
        Some(id) => select.query(params![function_id, from.time.0, from.id, n_rows, id.as_bytes()]),
    };
    let mut found = found.map_err(storage_failed)?;
    while let Some(row) = found.next().map_err(storage_failed)? {
        let (log, length) = read_log(row, 0).map_err(reading("log"))?;
        if !filling.has_room(length) {
            break;
        }
        filling.push(log);
    }
    Ok(filling.page())
}

/// The last of the rows that one tail looks through, whoever they are of: a position may be of long
/// ago, and an index by function would be one more for every row that is recorded.
pub(super) const TAIL_END: &str =
    "SELECT row_number FROM logs WHERE row_number > ?1 AND row_number <= ?2
     ORDER BY row_number LIMIT 1 OFFSET ?3";

/// The number of the newest row, also if that is gone.
pub(super) fn newest(c: &Connection) -> Result<i64, StoreError> {
    c.prepare_cached(concat!("SELECT ", newest!()))
        .and_then(|mut query| query.query_row([], |row| row.get(0)))
        .map_err(reading("log"))
}

/// Lets no later row have this number, or one before it, although rows were removed.
pub(super) fn keep_number(c: &Connection, number: i64) -> Result<(), StoreError> {
    execute(c, "UPDATE log_numbers SET last = ?1 WHERE last < ?1", [number]).map(drop)
}

/// Row numbers grow with every insert, so what is new is at the end of the table. The plus keeps
/// SQLite from the index of the function, which is in another order.
pub(super) const TAIL: &str = "SELECT row_number, function_id, execution_id, lines, duration_ms,
            memory_mb, failed, truncated, timestamp
     FROM logs WHERE row_number > ?1 AND row_number <= ?2 AND +function_id = ?3
     ORDER BY row_number LIMIT ?4";

/// What was recorded after a row number, oldest first; of a number of long ago, the first part.
pub(super) fn tail(
    c: &Connection,
    function_id: FunctionId,
    after: Option<i64>,
    limit: u32,
) -> Result<LogTail, StoreError> {
    // Read first: what is inserted between the two statements is left for the next tail.
    let newest = newest(c)?;
    let mut tail = LogTail { rows: Vec::new(), position: newest.to_string() };
    let Some(after) = after else { return Ok(tail) };
    let end: Option<i64> = c
        .prepare_cached(TAIL_END)
        .and_then(|mut query| {
            let last = i64::from(MAX_SCANNED_ROWS) - 1;
            query.query_row([after, newest, last], |row| row.get(0)).optional()
        })
        .map_err(reading("log"))?;
    let end = end.unwrap_or(newest);
    tail.position = end.to_string();
    let limit = page_limit(limit);
    let mut select = c.prepare_cached(TAIL).map_err(storage_failed)?;
    let mut found =
        select.query(params![after, end, function_id.as_bytes(), limit]).map_err(storage_failed)?;
    let mut text_bytes = 0;
    while let Some(row) = found.next().map_err(storage_failed)? {
        let (log, length) = read_log(row, 1).map_err(reading("log"))?;
        tail.rows.push(log);
        text_bytes += length;
        if tail.rows.len() >= limit as usize || text_bytes >= MAX_PAGE_TEXT_BYTES {
            let number: i64 = row.get(0).map_err(reading("log"))?;
            tail.position = number.to_string();
            break;
        }
    }
    Ok(tail)
}

/// Reads the log whose columns begin at `at`, and the length of its text.
pub(super) fn read_log(row: &Row<'_>, at: usize) -> rusqlite::Result<(LogRow, usize)> {
    let lines = at + 2;
    let length = row.get_ref(lines)?.as_bytes()?.len();
    let log = LogRow {
        function_id: FunctionId::from_bytes(row.get(at)?),
        execution_id: ExecutionId::from_bytes(row.get(at + 1)?),
        lines: json(row, lines)?,
        duration_ms: row.get(at + 3)?,
        memory_mb: row.get(at + 4)?,
        status: read_call_status(row, at + 5)?,
        truncated: row.get(at + 6)?,
        timestamp: time(row, at + 7)?,
    };
    Ok((log, length))
}
