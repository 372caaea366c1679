//! Usage (small rows, kept) and logs (heavy text, bounded). Usage is never read through logs.

use async_trait::async_trait;
use cloudserve_protocol::call::LogLine;
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use serde::Serialize;

use crate::{StoreError, Timestamp};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallStatus {
    /// The function answered.
    Success,
    /// It did not.
    Error,
}

/// One call, for billing and statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// The function.
    pub function_id: FunctionId,
    /// Its owner, who is billed.
    pub user_id: UserId,
    /// The call. Unique.
    pub execution_id: ExecutionId,
    /// The version that ran.
    pub version: u32,
    /// Wall-clock time at the gateway.
    #[serde(rename = "duration")]
    pub duration_ms: f64,
    /// CPU time of the isolate.
    #[serde(rename = "cpu")]
    pub cpu_ms: f64,
    /// Heap plus array buffers.
    #[serde(rename = "memoryUsed")]
    pub memory_mb: f64,
    /// How it ended.
    pub status: CallStatus,
    /// `ok` or the code of the fault.
    pub code: String,
    /// Whether it loaded the function.
    pub cold: bool,
    /// When it began.
    pub timestamp: Timestamp,
}

/// What one call wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// The function.
    pub function_id: FunctionId,
    /// The call.
    pub execution_id: ExecutionId,
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Wall-clock time at the gateway.
    pub duration_ms: f64,
    /// Heap plus array buffers.
    pub memory_mb: f64,
    /// How the call ended.
    pub status: CallStatus,
    /// Whether lines are missing.
    pub truncated: bool,
    /// When the call began.
    pub timestamp: Timestamp,
}

/// Which log rows to read.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// The function.
    pub function_id: FunctionId,
    /// At most this many.
    pub limit: u32,
    /// Where the previous page ended; opaque.
    pub after: Option<String>,
    /// Only this call.
    pub execution_id: Option<ExecutionId>,
}

/// A page of log rows, newest first.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// The rows.
    pub rows: Vec<LogRow>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// Which usage to read.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// Whose.
    pub user_id: UserId,
    /// Only this function.
    pub function_id: Option<FunctionId>,
    /// From here on, inclusive.
    pub from: Option<Timestamp>,
    /// Up to here, exclusive.
    pub to: Option<Timestamp>,
}

/// Sums over usage rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotals {
    /// Calls.
    pub executed: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that loaded the function.
    pub cold: u64,
    /// Wall-clock time.
    pub duration_ms: f64,
    /// CPU time.
    pub cpu_ms: f64,
    /// Memory in use times wall-clock time.
    pub gb_seconds: f64,
}

/// Sums over the calls of one day (UTC).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageDay {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// The sums.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// Statistics of one function over all its calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStats {
    /// Calls.
    pub executed: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Mean wall-clock time in ms.
    pub avg_latency: f64,
    /// Mean memory in MB.
    pub avg_memory: f64,
}

/// Storage of usage and logs.
#[async_trait]
pub trait TelemetryStore: Send + Sync {
    /// Writes both batches, each row once: an execution id that is there already is left alone.
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError>;

    /// Log rows of one function, newest first. A page may be short and yet have a successor.
    /// `BadCursor`: no page of this list gave it.
    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError>;

    /// Sums.
    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError>;

    /// Sums by day, oldest first.
    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError>;

    /// Rows, newest first. `BadCursor`: no page of this list gave it.
    async fn usage_rows(
        &self,
        query: UsageQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<crate::function::Page<UsageRow>, StoreError>;

    /// Statistics of these functions; one that was never called has all zeros.
    async fn function_stats(
        &self,
        functions: &[FunctionId],
    ) -> Result<Vec<(FunctionId, FunctionStats)>, StoreError>;

    /// Removes the logs of a function.
    async fn delete_logs(&self, function_id: FunctionId) -> Result<(), StoreError>;

    /// Removes log rows older than this. Returns how many.
    async fn expire_logs(&self, older_than: Timestamp) -> Result<u64, StoreError>;
}
