//! Stores finished calls in batches and tries again until it has succeeded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cloudserve_identity::Mask;
use cloudserve_protocol::fault::Chain;
use cloudserve_store::TelemetryStore;
use cloudserve_store::telemetry::{CallStatus, LogRow, UsageRow};
use futures::FutureExt;
use tokio::sync::{Notify, mpsc};

use super::{Finished, Shared};
use crate::mask::{INLINE_BYTES, bytes_to_mask, mask};
use crate::metrics::OK;
use crate::quota::Allowances;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Rows that are made in less time than it takes to wake another thread.
const INLINE_ROWS: usize = 128;

pub(super) struct Writer {
    pub(super) rows: mpsc::Receiver<Finished>,
    pub(super) store: Arc<dyn TelemetryStore>,
    pub(super) allowances: Arc<Allowances>,
    pub(super) shared: Arc<Shared>,
    pub(super) closing: Arc<Notify>,
    pub(super) batch_rows: usize,
    pub(super) interval: Duration,
}

impl Writer {
    /// Ends when the queue is closed, every call in flight has ended and every row is stored.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch_rows);
        let mut open = true;
        loop {
            let received = tokio::select! {
                received = self.rows.recv_many(&mut batch, self.batch_rows) => received,
                () = self.closing.notified(), if open => {
                    open = false;
                    self.rows.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            if open && received < self.batch_rows {
                tokio::select! {
                    () = tokio::time::sleep(self.interval) => {}
                    () = self.closing.notified() => {
                        open = false;
                        self.rows.close();
                    }
                }
                while batch.len() < self.batch_rows
                    && let Ok(row) = self.rows.try_recv()
                {
                    batch.push(row);
                }
            }
            let stored = std::mem::replace(&mut batch, Vec::with_capacity(self.batch_rows));
            let log_bytes = stored.iter().map(|call| call.log_bytes).sum();
            let storing = AssertUnwindSafe(self.store(stored.into(), log_bytes));
            // Whatever these rows are, without a writer there are no calls.
            if storing.catch_unwind().await.is_err() {
                tracing::error!("usage rows are lost: storing them has panicked");
            }
            self.shared.log_bytes.fetch_sub(log_bytes, Relaxed);
        }
    }

    async fn store(&self, batch: Arc<[Finished]>, log_bytes: usize) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (usage, logs) = rows(&batch).await;
            match self.store.record(usage, logs).await {
                Ok(()) => break,
                Err(error) => {
                    self.shared.metrics.store_failures.fetch_add(1, Relaxed);
                    tracing::error!(
                        rows = batch.len(),
                        error = %Chain(&error),
                        "usage is not stored yet"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.allowances.stored(batch.iter().map(|call| (&call.allowance, call.spent()))).await;
        self.shared.metrics.usage_stored.fetch_add(batch.len() as u64, Relaxed);
        if log_bytes > INLINE_BYTES {
            // Its lines are many. Nobody waits for it.
            drop(tokio::task::spawn_blocking(move || drop(batch)));
        }
    }
}

/// The rows of these calls. Many are made, and long logs are copied and masked, by a thread that serves
/// nobody.
async fn rows(batch: &Arc<[Finished]>) -> (Vec<UsageRow>, Vec<LogRow>) {
    let make =
        |batch: &[Finished]| (batch.iter().map(usage_row).collect::<Vec<_>>(), log_rows(batch));
    let bytes: usize = batch.iter().map(|call| bytes_to_mask(call.log_bytes, &call.target)).sum();
    if bytes <= INLINE_BYTES && batch.len() <= INLINE_ROWS {
        return make(batch);
    }
    let copied = batch.clone();
    // An error says that the runtime ends.
    tokio::task::spawn_blocking(move || make(&copied)).await.unwrap_or_else(|_| make(batch))
}

/// The calls of one version share what masks its environment, and one environment is held at a time.
fn log_rows(batch: &[Finished]) -> Vec<LogRow> {
    let mut calls: Vec<&Finished> = batch.iter().filter(|call| has_log(call)).collect();
    // Calls of one version stay in order.
    calls.sort_by_key(|call| (call.target.function_id, call.target.version));
    let versions = calls.chunk_by(|one, other| one.target.key() == other.target.key());
    let rows = versions.flat_map(|calls| {
        // Only where there is text to mask: that is what decides who makes the rows.
        let with_text = calls.iter().find(|call| call.log_bytes > 0);
        let mask = with_text.map(|call| Mask::of(&call.target.env)).unwrap_or_default();
        calls.iter().map(move |call| log_row(call, &mask))
    });
    rows.collect()
}

fn usage_row(call: &Finished) -> UsageRow {
    let outcome = &call.outcome;
    UsageRow {
        function_id: call.target.function_id,
        user_id: call.target.owner_id,
        execution_id: call.execution_id,
        version: call.target.version,
        duration_ms: milliseconds(call.duration),
        cpu_ms: milliseconds(Duration::from_micros(outcome.cpu_us)),
        memory_mb: megabytes(outcome.memory_bytes),
        status: status(call),
        code: outcome.fault.as_ref().map_or(OK, |fault| fault.class.code()).into(),
        cold: outcome.cold,
        timestamp: call.began,
    }
}

/// Nothing was said and nothing went wrong: no row.
fn has_log(call: &Finished) -> bool {
    let outcome = &call.outcome;
    !outcome.logs.is_empty() || outcome.logs_truncated || outcome.fault.is_some()
}

fn log_row(call: &Finished, mask_of_version: &Mask) -> LogRow {
    let outcome = &call.outcome;
    let mut lines = outcome.logs.clone();
    mask(&mut lines, mask_of_version, call.target.limits.log_bytes);
    LogRow {
        function_id: call.target.function_id,
        execution_id: call.execution_id,
        lines,
        duration_ms: milliseconds(call.duration),
        memory_mb: megabytes(outcome.memory_bytes),
        status: status(call),
        truncated: outcome.logs_truncated,
        timestamp: call.began,
    }
}

fn status(call: &Finished) -> CallStatus {
    if call.outcome.fault.is_none() { CallStatus::Success } else { CallStatus::Error }
}

/// As the product shows times.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// As the product shows memory.
#[allow(clippy::cast_precision_loss)] // A petabyte is still exact.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
