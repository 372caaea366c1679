//! Usage and logs in `telemetry.db`. Sums over usage are in [`super::usage`].

use std::sync::Arc;

use async_trait::async_trait;
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use rusqlite::{Connection, Row, params};

use super::columns::{json, reading, storage_failed, time, to_json};
use super::database::Database;
use super::usage;
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::Page;
use crate::telemetry::{
    CallStatus, FunctionStats, LogPage, LogQuery, LogRow, UsageDay, UsageQuery, UsageRow,
    UsageTotals,
};
use crate::{StoreError, TelemetryStore, Timestamp};

/// Log rows removed in one transaction: calls of other functions are recorded in between.
const DELETE_BATCH: u32 = 2_000;

/// Log text in one page: a page of chatty calls has fewer rows than asked for.
const MAX_PAGE_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// [`TelemetryStore`] over SQLite.
pub(crate) struct SqliteTelemetry {
    telemetry: Arc<Database>,
}

impl SqliteTelemetry {
    pub(crate) fn new(telemetry: Arc<Database>) -> Self {
        Self { telemetry }
    }

    /// Repeats a bounded delete until nothing is left.
    async fn delete_in_batches<T>(&self, sql: &'static str, key: T) -> Result<u64, StoreError>
    where
        T: rusqlite::ToSql + Copy + Send + 'static,
    {
        let mut deleted = 0;
        loop {
            let batch = self
                .telemetry
                .write(move |c, _| {
                    c.prepare_cached(sql)
                        .and_then(|mut delete| delete.execute(params![key, DELETE_BATCH]))
                        .map_err(storage_failed)
                })
                .await?;
            deleted += batch as u64;
            if batch < DELETE_BATCH as usize {
                return Ok(deleted);
            }
        }
    }
}

#[async_trait]
impl TelemetryStore for SqliteTelemetry {
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError> {
        if usage.is_empty() && logs.is_empty() {
            return Ok(());
        }
        // Serialised here, on the caller's thread: the writer is the one thing all calls share.
        let logs = logs
            .into_iter()
            .map(|row| to_json(&row.lines).map(|text| (row, text)))
            .collect::<Result<Vec<_>, _>>()?;
        self.telemetry
            .write(move |c, _| {
                usage::insert(c, &usage)?;
                insert_logs(c, &logs)
            })
            .await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError> {
        let from = Cursor::parse(query.after.as_deref())?;
        self.telemetry.read(move |c| read_logs(c, &query, from)).await
    }

    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError> {
        self.telemetry.read(move |c| usage::totals(c, &query)).await
    }

    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError> {
        self.telemetry.read(move |c| usage::by_day(c, &query)).await
    }

    async fn usage_rows(
        &self,
        query: UsageQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<UsageRow>, StoreError> {
        let from = Cursor::parse(cursor)?;
        self.telemetry.read(move |c| usage::rows(c, &query, limit, from)).await
    }

    async fn function_stats(
        &self,
        functions: &[FunctionId],
    ) -> Result<Vec<(FunctionId, FunctionStats)>, StoreError> {
        let functions = functions.to_vec();
        self.telemetry
            .read(move |c| {
                functions.into_iter().map(|id| Ok((id, usage::function_stats(c, id)?))).collect()
            })
            .await
    }

    async fn delete_logs(&self, function_id: FunctionId) -> Result<(), StoreError> {
        let sql = "DELETE FROM logs WHERE row_number IN
                       (SELECT row_number FROM logs WHERE function_id = ?1 LIMIT ?2)";
        self.delete_in_batches(sql, *function_id.as_bytes()).await.map(drop)
    }

    async fn expire_logs(&self, older_than: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM logs WHERE row_number IN
                       (SELECT row_number FROM logs WHERE timestamp < ?1 LIMIT ?2)";
        self.delete_in_batches(sql, older_than.0).await
    }
}

pub(super) fn failed(status: CallStatus) -> bool {
    status == CallStatus::Error
}

pub(super) fn read_call_status(row: &Row<'_>, column: usize) -> rusqlite::Result<CallStatus> {
    Ok(if row.get(column)? { CallStatus::Error } else { CallStatus::Success })
}

/// A measurement that SQLite can store. NaN would be NULL, and one bad row would keep its whole
/// batch out for ever.
pub(super) fn measured(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn insert_logs(c: &Connection, logs: &[(LogRow, String)]) -> Result<(), StoreError> {
    let mut insert = c
        .prepare_cached(
            "INSERT INTO logs (execution_id, function_id, timestamp, duration_ms, memory_mb,
                               failed, truncated, lines)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )
        .map_err(storage_failed)?;
    for (row, lines) in logs {
        insert
            .execute(params![
                row.execution_id.as_bytes(),
                row.function_id.as_bytes(),
                row.timestamp.0,
                measured(row.duration_ms),
                measured(row.memory_mb),
                failed(row.status),
                row.truncated,
                lines,
            ])
            .map_err(storage_failed)?;
    }
    Ok(())
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

fn read_logs(c: &Connection, query: &LogQuery, from: Cursor) -> Result<LogPage, StoreError> {
    let sql = match query.execution_id {
        None => LOGS,
        Some(_) => LOG_OF_CALL,
    };
    let mut select = c.prepare_cached(sql).map_err(storage_failed)?;
    let function_id = query.function_id.as_bytes();
    let limit = page_limit(query.limit);
    let one_more = i64::from(limit) + 1;
    let position = params![function_id, from.time.0, from.id, one_more];
    let found = match &query.execution_id {
        None => select.query(position),
        Some(id) => {
            select.query(params![function_id, from.time.0, from.id, one_more, id.as_bytes()])
        }
    };
    let mut found = found.map_err(storage_failed)?;
    let (mut rows, mut text_bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().map_err(storage_failed)? {
        let read = |row| Ok((read_log(row)?, row.get_ref(LINES)?.as_bytes()?.len()));
        let (log, length) = read(row).map_err(reading("log"))?;
        text_bytes += length;
        rows.push(log);
        if text_bytes > MAX_PAGE_TEXT_BYTES && rows.len() > 1 {
            // The last row is the one that shows that there is more.
            break;
        }
    }
    let shown = if text_bytes > MAX_PAGE_TEXT_BYTES { rows.len() - 1 } else { rows.len() };
    let limit = limit.min(u32::try_from(shown.max(1)).unwrap_or(limit));
    let (rows, next) = finish_page(rows, limit, |row: &LogRow| Cursor {
        time: row.timestamp,
        id: *row.execution_id.as_bytes(),
    });
    Ok(LogPage { rows, next })
}

/// Column of the text in [`LOGS`].
const LINES: usize = 2;

fn read_log(row: &Row<'_>) -> rusqlite::Result<LogRow> {
    Ok(LogRow {
        function_id: FunctionId::from_bytes(row.get(0)?),
        execution_id: ExecutionId::from_bytes(row.get(1)?),
        lines: json(row, LINES)?,
        duration_ms: row.get(3)?,
        memory_mb: row.get(4)?,
        status: read_call_status(row, 5)?,
        truncated: row.get(6)?,
        timestamp: time(row, 7)?,
    })
}

pub(super) fn read_usage(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    Ok(UsageRow {
        function_id: FunctionId::from_bytes(row.get(0)?),
        user_id: UserId::from_bytes(row.get(1)?),
        execution_id: ExecutionId::from_bytes(row.get(2)?),
        version: row.get(3)?,
        duration_ms: row.get(4)?,
        cpu_ms: row.get(5)?,
        memory_mb: row.get(6)?,
        status: read_call_status(row, 7)?,
        code: row.get(8)?,
        cold: row.get(9)?,
        timestamp: time(row, 10)?,
    })
}
