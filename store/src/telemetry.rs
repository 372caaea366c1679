//! Usage (small rows, kept) and logs (heavy text, bounded). Usage is never read through logs.

mod log_page;

use std::borrow::Cow;
use std::iter::Sum;

use async_trait::async_trait;
use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use serde::{Deserialize, Serialize};

pub(crate) use self::log_page::Filling;
use crate::{StoreError, Timestamp};

/// Log text read for one page: beyond it the page ends, with fewer rows than asked for.
pub(crate) const MAX_PAGE_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// Rows looked through for one page of a search.
pub(crate) const MAX_SCANNED_ROWS: u32 = 5_000;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallStatus {
    /// The function answered.
    Success,
    /// It did not.
    Error,
}

/// One call, for billing and statistics.
#[derive(Debug, Clone, PartialEq)]
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
    pub duration_ms: f64,
    /// CPU time of the isolate.
    pub cpu_ms: f64,
    /// Heap plus array buffers.
    pub memory_mb: f64,
    /// How it ended.
    pub status: CallStatus,
    /// `ok` or the code of the fault.
    pub code: Cow<'static, str>,
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

impl LogRow {
    /// How much its lines are.
    pub(crate) fn text_bytes(&self) -> usize {
        self.lines.iter().map(LogLine::counted_bytes).sum()
    }
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
    /// Only lines like this, and only rows that have some.
    pub filter: LogFilter,
}

/// Which lines of a log to read. Back ends filter with [`LogFilter::keep`], so that all of them
/// mean the same by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    levels: Vec<LogLevel>,
    /// Lower case.
    text: Option<String>,
}

impl LogFilter {
    /// Lines of these levels (all, if there are none) that contain this text, whatever its case.
    #[must_use]
    pub fn new(levels: Vec<LogLevel>, text: Option<&str>) -> Self {
        let text = text.filter(|text| !text.is_empty()).map(str::to_lowercase);
        Self { levels, text }
    }

    /// Whether it lets everything pass, rows without lines too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.text.is_none()
    }

    /// Removes the other lines of a row. `false`: the row has none of these.
    pub fn keep(&self, row: &mut LogRow) -> bool {
        if self.is_empty() {
            return true;
        }
        row.lines.retain(|line| {
            (self.levels.is_empty() || self.levels.contains(&line.level))
                && self.text.as_ref().is_none_or(|text| line.message.to_lowercase().contains(text))
        });
        !row.lines.is_empty()
    }
}

/// Log rows in the order in which they were recorded, as far as the back end knows it.
#[derive(Debug, Clone)]
pub struct LogTail {
    /// The rows, oldest first.
    pub rows: Vec<LogRow>,
    /// Where to go on. Opaque.
    pub position: String,
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
#[derive(Debug, Clone, Default, PartialEq)]
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

impl Sum for UsageTotals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, more| Self {
            executed: sum.executed + more.executed,
            errors: sum.errors + more.errors,
            cold: sum.cold + more.cold,
            duration_ms: sum.duration_ms + more.duration_ms,
            cpu_ms: sum.cpu_ms + more.cpu_ms,
            gb_seconds: sum.gb_seconds + more.gb_seconds,
        })
    }
}

/// Sums over the calls of one day (UTC).
#[derive(Debug, Clone, PartialEq)]
pub struct UsageDay {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// The sums.
    pub totals: UsageTotals,
}

/// Sums over the calls of one function.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageOfFunction {
    /// The function. It may be deleted: usage stays.
    pub function_id: FunctionId,
    /// The sums.
    pub totals: UsageTotals,
}

/// Upper bounds of the latency buckets, in milliseconds, each inclusive. What is longer is in one
/// more bucket. Stored sums depend on them: a change needs a migration.
pub const LATENCY_BOUNDS_MS: [f64; 20] = [
    0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0,
    10_000.0, 30_000.0, 60_000.0, 300_000.0, 600_000.0, 900_000.0,
];

/// One for each of [`LATENCY_BOUNDS_MS`] and one for the rest.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

/// Calls by how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency(pub [u64; LATENCY_BUCKETS]);

impl Latency {
    /// The bucket of a call that took this long.
    #[must_use]
    pub fn bucket(duration_ms: f64) -> usize {
        LATENCY_BOUNDS_MS.partition_point(|bound| *bound < duration_ms)
    }

    /// All calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The bound below which this share of the calls ended: that of the bucket the share falls
    /// into. `None` without calls, and where it is beyond the last bound.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<f64> {
        let rank = (self.calls() * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        let place = self.0.iter().position(|calls| {
            seen += calls;
            seen >= rank
        });
        LATENCY_BOUNDS_MS.get(place?).copied()
    }

    /// Adds the calls of another one.
    pub fn add(&mut self, other: &Self) {
        for (sum, calls) in self.0.iter_mut().zip(other.0) {
            *sum += calls;
        }
    }
}

/// Latencies of the calls of one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyDay {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// The calls.
    pub latency: Latency,
}

/// Statistics of one function over all its calls.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Writes both batches, each row once: a call that is there already is left alone. It keeps its
    /// function and its time.
    async fn record(&self, usage: Vec<UsageRow>, logs: Vec<LogRow>) -> Result<(), StoreError>;

    /// Log rows of one function, newest first. A page may be short, or empty, and yet have a
    /// successor: what is looked through for one page is bounded.
    /// `BadCursor`: no page of this list gave it.
    async fn logs(&self, query: LogQuery) -> Result<LogPage, StoreError>;

    /// Log rows of one function that were recorded after `position`, oldest first, at most
    /// `limit`. Without a position: no rows, and the position of now. Long calls are recorded long
    /// after they began, so this is another order than that of [`TelemetryStore::logs`]. A row
    /// may come twice where the order is not quite known, but none is left out. What is looked
    /// through is bounded: of a position of long ago a tail may be empty and yet have a successor.
    /// `BadCursor`: no tail gave this position.
    async fn log_tail(
        &self,
        function_id: FunctionId,
        position: Option<&str>,
        limit: u32,
    ) -> Result<LogTail, StoreError>;

    /// Sums.
    async fn usage_totals(&self, query: UsageQuery) -> Result<UsageTotals, StoreError>;

    /// Sums by day, oldest first.
    async fn usage_by_day(&self, query: UsageQuery) -> Result<Vec<UsageDay>, StoreError>;

    /// Sums by function, in the order of their ids.
    async fn usage_by_function(
        &self,
        query: UsageQuery,
    ) -> Result<Vec<UsageOfFunction>, StoreError>;

    /// Latencies by day, oldest first. Days are taken whole: the one `from` is in, and the one the
    /// last moment before `to` is in.
    async fn latency_by_day(&self, query: UsageQuery) -> Result<Vec<LatencyDay>, StoreError>;

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

    /// Removes single calls older than this, where the database does not do so by itself. Returns how
    /// many. Their sums stay.
    async fn expire_usage(&self, older_than: Timestamp) -> Result<u64, StoreError>;
}

/// A measurement that can be stored and summed. In SQLite NaN would be NULL, and one bad row would keep its
/// whole batch out for ever.
pub(crate) fn measured(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// Deletes the logs of a function that has just been deleted. If that fails, the function is gone
/// all the same, and with it the only way to its logs; they expire with age.
pub(crate) async fn forget_logs(telemetry: &dyn TelemetryStore, function_id: FunctionId) {
    if let Err(error) = telemetry.delete_logs(function_id).await {
        tracing::warn!(
            function = %function_id,
            error = %Chain(&error),
            "logs of a deleted function remain"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut latency = Latency::default();
        assert_eq!((latency.calls(), latency.percentile(50)), (0, None));
        for duration_ms in [0.1, 0.25, 0.26, 4.0, 7_200_000.0] {
            latency.0[Latency::bucket(duration_ms)] += 1;
        }
        assert_eq!(latency.calls(), 5);
        for (percent, bound) in [(0, 0.25), (40, 0.25), (50, 0.5), (80, 5.0)] {
            assert_eq!(latency.percentile(percent), Some(bound), "{percent}");
        }
        assert_eq!(latency.percentile(99), None);
    }
}
