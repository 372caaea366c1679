//! Usage and logs in `telemetry.db`. Sums over usage are in [`super::usage`], the logs in
//! [`super::logs`].

use std::sync::Arc;

use async_trait::async_trait;
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use rusqlite::{Connection, Row, params};

use super::columns::{time, to_json};
use super::database::Database;
use super::statements::execute;
use super::usage::Turn;
use super::{logs, usage};
use crate::cursor::Cursor;
use crate::function::Page;
use crate::telemetry::{
    CallStatus, FunctionStats, LatencyDay, LogPage, LogQuery, LogRow, LogTail, UsageDay,
    UsageOfFunction, UsageQuery, UsageRow, UsageTotals,
};
use crate::{StoreError, TelemetryStore, Timestamp};

/// Rows removed in one transaction: calls of other functions are recorded in between.
const DELETE_BATCH: usize = 2_000;

/// Logs removed by one statement, between looks at the clock: each may hold a megabyte.
const LOGS_AT_ONCE: usize = 10;

/// [`TelemetryStore`] over SQLite.
pub(crate) struct SqliteTelemetry {
    telemetry: Arc<Database>,
}

impl SqliteTelemetry {
    pub(crate) fn new(telemetry: Arc<Database>) -> Self {
        Self { telemetry }
    }

    /// Repeats a bounded delete of logs until nothing is left.
    async fn delete_in_batches<T>(&self, sql: &'static str, key: T) -> Result<u64, StoreError>
    where
        T: rusqlite::ToSql + Copy + Send + 'static,
    {
        let mut deleted = 0;
        loop {
            let batch = self
                .telemetry
                .write(move |c, _| {
                    let newest = logs::newest(c)?;
                    let batch = remove_logs(c, sql, key)?;
                    if batch > 0 {
                        logs::keep_number(c, newest)?;
                    }
                    Ok(batch)
                })
                .await?;
            deleted += batch as u64;
            if batch < DELETE_BATCH {
                return Ok(deleted);
            }
        }
    }
}

/// Log text that is serialised in less time than it takes to wake another thread.
const INLINE_TEXT_BYTES: usize = 64 * 1024;

#[async_trait]
impl TelemetryStore for SqliteTelemetry {
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError> {
        if usage.is_empty() && logs.is_empty() {
            return Ok(());
        }
        // Not by the writer: it is the one thing all calls share. And by a thread that serves
        // nobody, if it takes long.
        let text_bytes: usize = logs.iter().map(LogRow::text_bytes).sum();
        let serialise = move || -> Result<Vec<_>, _> {
            logs.into_iter().map(|row| to_json(&row.lines).map(|text| (row, text))).collect()
        };
        let rows = if text_bytes <= INLINE_TEXT_BYTES {
            serialise()?
        } else {
            tokio::task::spawn_blocking(serialise).await.map_err(StoreError::unavailable)??
        };
        self.telemetry
            .write(move |c, _| {
                usage::insert(c, &usage)?;
                rows.iter().try_for_each(|(row, lines)| logs::insert(c, row, lines))
            })
            .await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError> {
        let from = Cursor::parse(query.after.as_deref())?;
        self.telemetry.read(move |c| logs::read(c, &query, from)).await
    }

    async fn log_tail(
        &self,
        function_id: FunctionId,
        position: Option<&str>,
        limit: u32,
    ) -> Result<LogTail, StoreError> {
        let after = position.map(str::parse).transpose().map_err(|_| StoreError::BadCursor)?;
        self.telemetry.read(move |c| logs::tail(c, function_id, after, limit)).await
    }

    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError> {
        self.telemetry.read(move |c| usage::totals(c, &query)).await
    }

    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError> {
        self.telemetry.read(move |c| usage::by_day(c, &query)).await
    }

    async fn usage_by_function(
        &self,
        query: UsageQuery,
    ) -> Result<Vec<UsageOfFunction>, StoreError> {
        self.telemetry.read(move |c| usage::by_function(c, &query)).await
    }

    async fn latency_by_day(&self, query: UsageQuery) -> Result<Vec<LatencyDay>, StoreError> {
        self.telemetry.read(move |c| usage::latency_by_day(c, &query)).await
    }

    async fn usage_rows(
        &self,
        query: UsageQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<UsageRow>, StoreError> {
        let from = Cursor::parse(cursor)?;
        self.telemetry.read(move |c| usage::calls::page(c, &query, limit, from)).await
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

    async fn expire_usage(&self, older_than: Timestamp) -> Result<u64, StoreError> {
        let old = self.telemetry.read(move |c| usage::expiry::functions(c, older_than)).await?;
        let most = DELETE_BATCH;
        let mut deleted = 0;
        for id in old {
            loop {
                let batch = self
                    .telemetry
                    .write(move |c, _| usage::expiry::remove(c, id, older_than, most))
                    .await?;
                deleted += batch as u64;
                if batch < most {
                    break;
                }
            }
        }
        Ok(deleted)
    }
}

/// Removes one batch of logs at most by a statement that takes a key and a number; how many there were.
fn remove_logs(
    c: &Connection,
    sql: &str,
    key: impl rusqlite::ToSql + Copy,
) -> Result<usize, StoreError> {
    let mut turn = Turn::begin();
    let mut removed = 0;
    while removed < DELETE_BATCH {
        let at_once = LOGS_AT_ONCE.min(DELETE_BATCH - removed);
        let n = execute(c, sql, params![key, at_once])?;
        removed += n;
        if n < at_once {
            break;
        }
        turn.end_if_over();
    }
    Ok(removed)
}

pub(super) fn failed(status: CallStatus) -> bool {
    status == CallStatus::Error
}

pub(super) fn read_call_status(row: &Row<'_>, column: usize) -> rusqlite::Result<CallStatus> {
    Ok(if row.get(column)? { CallStatus::Error } else { CallStatus::Success })
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
