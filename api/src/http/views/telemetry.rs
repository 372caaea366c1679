//! Logs and usage.

use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use cloudserve_store::Timestamp;
use cloudserve_store::function::Page;
use cloudserve_store::telemetry::{
    CallStatus, LATENCY_BOUNDS_MS, Latency, LatencyDay, LogPage, LogRow, UsageDay, UsageOfFunction,
    UsageRow, UsageTotals,
};
use serde::Serialize;
use utoipa::ToSchema;

/// What one call wrote.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Log)]
pub(in super::super) struct LogRowView {
    #[schema(value_type = String, format = Uuid)]
    function_id: FunctionId,
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    logs: Vec<LogLineView>,
    /// In ms.
    duration: f64,
    /// In MB.
    memory_used: f64,
    /// `success` or `error`.
    #[schema(value_type = String)]
    status: CallStatus,
    /// Whether lines are missing.
    truncated: bool,
    /// When the call began.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

/// One line.
#[derive(Serialize, ToSchema)]
#[schema(as = LogLine)]
struct LogLineView {
    /// `debug`, `info`, `warn` or `error`.
    #[schema(value_type = String)]
    level: LogLevel,
    message: String,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

impl From<LogRow> for LogRowView {
    fn from(row: LogRow) -> Self {
        let line = |line: LogLine| LogLineView {
            level: line.level,
            message: line.message,
            timestamp: Timestamp(i64::try_from(line.timestamp_ms).unwrap_or(i64::MAX)),
        };
        Self {
            function_id: row.function_id,
            execution_id: row.execution_id,
            logs: row.lines.into_iter().map(line).collect(),
            duration: row.duration_ms,
            memory_used: row.memory_mb,
            status: row.status,
            truncated: row.truncated,
            timestamp: row.timestamp,
        }
    }
}

/// A page of logs, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Logs)]
pub(in super::super) struct LogsView {
    logs: Vec<LogRowView>,
    /// For `?after=`; `null` at the end. A search may show an empty page before it.
    next: Option<String>,
}

impl From<LogPage> for LogsView {
    fn from(page: LogPage) -> Self {
        Self { logs: page.rows.into_iter().map(LogRowView::from).collect(), next: page.next }
    }
}

/// Sums over calls.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageTotals)]
pub(in super::super) struct TotalsView {
    executed: u64,
    errors: u64,
    /// Calls that loaded the function.
    cold: u64,
    duration_ms: f64,
    cpu_ms: f64,
    gb_seconds: f64,
}

impl From<UsageTotals> for TotalsView {
    fn from(totals: UsageTotals) -> Self {
        Self {
            executed: totals.executed,
            errors: totals.errors,
            cold: totals.cold,
            duration_ms: totals.duration_ms,
            cpu_ms: totals.cpu_ms,
            gb_seconds: totals.gb_seconds,
        }
    }
}

/// Sums over the calls of one day (UTC).
#[derive(Serialize, ToSchema)]
#[schema(as = UsageDay)]
struct DayView {
    /// `YYYY-MM-DD`.
    day: String,
    #[serde(flatten)]
    totals: TotalsView,
}

/// Sums over the calls of one function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageOfFunction)]
struct OfFunctionView {
    #[schema(value_type = String, format = Uuid)]
    function_id: FunctionId,
    #[serde(flatten)]
    totals: TotalsView,
}

/// One call.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageRow)]
pub(in super::super) struct RowView {
    #[schema(value_type = String, format = Uuid)]
    function_id: FunctionId,
    #[schema(value_type = String, format = Uuid)]
    user_id: UserId,
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    version: u32,
    /// In ms.
    duration: f64,
    /// In ms.
    cpu: f64,
    /// In MB.
    memory_used: f64,
    /// `success` or `error`.
    #[schema(value_type = String)]
    status: CallStatus,
    /// `ok` or the code of the fault.
    code: String,
    cold: bool,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

impl From<UsageRow> for RowView {
    fn from(row: UsageRow) -> Self {
        Self {
            function_id: row.function_id,
            user_id: row.user_id,
            execution_id: row.execution_id,
            version: row.version,
            duration: row.duration_ms,
            cpu: row.cpu_ms,
            memory_used: row.memory_mb,
            status: row.status,
            code: row.code.into_owned(),
            cold: row.cold,
            timestamp: row.timestamp,
        }
    }
}

/// Usage, as `groupBy` says: one of these.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Usage)]
pub(in super::super) struct UsageView {
    /// Without `groupBy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<TotalsView>,
    /// With `groupBy=day`, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<Vec<DayView>>,
    /// With `groupBy=function`.
    #[serde(skip_serializing_if = "Option::is_none")]
    functions: Option<Vec<OfFunctionView>>,
    /// With `groupBy=none`, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Vec<RowView>>,
    /// With `groupBy=none`: for `?cursor=`; `null` at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[expect(clippy::option_option, reason = "left out, or null")]
    next_cursor: Option<Option<String>>,
}

impl From<UsageTotals> for UsageView {
    fn from(totals: UsageTotals) -> Self {
        Self { totals: Some(totals.into()), ..Self::default() }
    }
}

impl From<Vec<UsageDay>> for UsageView {
    fn from(days: Vec<UsageDay>) -> Self {
        let days = days.into_iter().map(|day| DayView { day: day.day, totals: day.totals.into() });
        Self { days: Some(days.collect()), ..Self::default() }
    }
}

impl From<Vec<UsageOfFunction>> for UsageView {
    fn from(functions: Vec<UsageOfFunction>) -> Self {
        let functions = functions
            .into_iter()
            .map(|of| OfFunctionView { function_id: of.function_id, totals: of.totals.into() });
        Self { functions: Some(functions.collect()), ..Self::default() }
    }
}

impl From<Page<UsageRow>> for UsageView {
    fn from(page: Page<UsageRow>) -> Self {
        let rows = page.items.into_iter().map(RowView::from).collect();
        Self { usage: Some(rows), next_cursor: Some(page.next), ..Self::default() }
    }
}

/// How long calls took. Percentiles are upper bounds of buckets; `null` without calls, and above
/// the last bound.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LatencyOfCalls)]
struct HistogramView {
    calls: u64,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    buckets: Vec<BucketView>,
}

/// Calls that took at most this long, and longer than the bound before. Empty ones are left out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LatencyBucket)]
struct BucketView {
    /// `null`: longer than all bounds.
    up_to_ms: Option<f64>,
    calls: u64,
}

impl From<&Latency> for HistogramView {
    fn from(latency: &Latency) -> Self {
        let bounds = LATENCY_BOUNDS_MS.into_iter().map(Some).chain([None]);
        let buckets = bounds
            .zip(latency.0)
            .filter(|(_, calls)| *calls > 0)
            .map(|(up_to_ms, calls)| BucketView { up_to_ms, calls });
        Self {
            calls: latency.calls(),
            p50_ms: latency.percentile(50),
            p90_ms: latency.percentile(90),
            p99_ms: latency.percentile(99),
            buckets: buckets.collect(),
        }
    }
}

/// The calls of one day (UTC).
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyDay)]
struct LatencyDayView {
    /// `YYYY-MM-DD`.
    day: String,
    #[serde(flatten)]
    latency: HistogramView,
}

/// Latencies by day and over all days.
#[derive(Serialize, ToSchema)]
#[schema(as = Latency)]
pub(in super::super) struct LatencyView {
    total: HistogramView,
    days: Vec<LatencyDayView>,
}

impl From<Vec<LatencyDay>> for LatencyView {
    fn from(days: Vec<LatencyDay>) -> Self {
        let mut total = Latency::default();
        for day in &days {
            total.add(&day.latency);
        }
        let days = days
            .into_iter()
            .map(|day| LatencyDayView { latency: HistogramView::from(&day.latency), day: day.day });
        Self { total: HistogramView::from(&total), days: days.collect() }
    }
}
