//! Usage over time, in equal steps: what a chart shows.
//!
//! Percentiles are exact, from the durations of the calls in a step. The rows that are read are
//! bounded; of more calls the newest are taken, and the series says from when on it is complete.

use cloudserve_identity::Principal;
use cloudserve_store::Timestamp;
use cloudserve_store::telemetry::{CallStatus, UsageQuery, UsageRow};

use super::App;
use super::refusal::Refusal;

const PAGE: u32 = 1_000;

/// One step.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) executed: u64,
    pub(crate) errors: u64,
    pub(crate) cold: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) peak_memory_mb: Option<f64>,
}

/// A series of steps from `from` on.
#[derive(Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) from: Timestamp,
    pub(crate) step_ms: i64,
    pub(crate) steps: Vec<Step>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// `None`: everything was counted.
    pub(crate) complete_from: Option<Timestamp>,
}

impl App {
    /// Usage between two instants in `n_steps` steps.
    pub(crate) async fn series(
        &self,
        principal: &Principal,
        query: UsageQuery,
        (from, to): (Timestamp, Timestamp),
        n_steps: u32,
    ) -> Result<Series, Refusal> {
        if to.0.checked_sub(from.0).is_none_or(|span| span < i64::from(n_steps)) {
            return Err(Refusal::field("to", "must be later than from, by a millisecond a point"));
        }
        let query = UsageQuery { from: Some(from), to: Some(to), ..query };
        let mut rows = Vec::new();
        let mut cursor = None;
        let complete_from = loop {
            let page = self.usage_rows(principal, query.clone(), PAGE, cursor).await?;
            rows.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break None;
            }
            if rows.len() >= self.options.series_rows as usize {
                break rows.last().map(|row| row.timestamp);
            }
        };
        let series = move || Series { complete_from, ..sum(&rows, from, to, n_steps) };
        tokio::task::spawn_blocking(series).await.map_err(Refusal::internal)
    }
}

fn sum(rows: &[UsageRow], from: Timestamp, to: Timestamp, n_steps: u32) -> Series {
    let n_steps = i64::from(n_steps.max(1));
    let step_ms = ((to.0 - from.0) / n_steps).max(1);
    let mut steps = vec![Step::default(); usize::try_from(n_steps).unwrap_or_default()];
    let mut durations = vec![Vec::new(); steps.len()];
    for row in rows {
        // What is left of a division belongs to the last step.
        let at = ((row.timestamp.0 - from.0) / step_ms).clamp(0, n_steps - 1);
        let at = usize::try_from(at).unwrap_or_default();
        let step = &mut steps[at];
        step.executed += 1;
        step.errors += u64::from(row.status == CallStatus::Error);
        step.cold += u64::from(row.cold);
        let peak = step.peak_memory_mb.map_or(row.memory_mb, |peak| peak.max(row.memory_mb));
        step.peak_memory_mb = Some(peak);
        durations[at].push(row.duration_ms);
    }
    let mut all: Vec<f64> = durations.iter().flatten().copied().collect();
    for (step, durations) in steps.iter_mut().zip(&mut durations) {
        step.p50_ms = percentile(durations, 50);
        step.p99_ms = percentile(durations, 99);
    }
    let (p50_ms, p99_ms) = (percentile(&mut all, 50), percentile(&mut all, 99));
    Series { from, step_ms, steps, p50_ms, p99_ms, complete_from: None }
}

/// The smallest value that `percent` of 100 values do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    let rank = (values.len() * percent).div_ceil(100).checked_sub(1)?;
    let (_, value, _) = values.select_nth_unstable_by(rank, f64::total_cmp);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};

    use super::*;

    fn row(timestamp: i64, duration_ms: f64, cold: bool, status: CallStatus) -> UsageRow {
        UsageRow {
            function_id: FunctionId::new(),
            user_id: UserId::new(),
            execution_id: ExecutionId::new(),
            version: 1,
            duration_ms,
            cpu_ms: 0.0,
            memory_mb: duration_ms / 2.0,
            status,
            code: "ok".into(),
            cold,
            timestamp: Timestamp(timestamp),
        }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred = || (1..=100).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(&mut hundred(), 50), Some(50.0));
        assert_eq!(percentile(&mut hundred(), 99), Some(99.0));
        assert_eq!(percentile(&mut [7.0], 99), Some(7.0));
        assert_eq!(percentile(&mut [], 50), None);
    }

    #[test]
    fn calls_fall_into_their_steps() {
        use CallStatus::{Error, Success};
        let rows = [
            row(1_000, 10.0, true, Success),
            row(1_099, 20.0, false, Error),
            row(1_100, 30.0, false, Success),
            row(1_399, 40.0, false, Success),
        ];
        let series = sum(&rows, Timestamp(1_000), Timestamp(1_400), 4);
        assert_eq!(series.step_ms, 100);
        let figures: Vec<_> = series
            .steps
            .iter()
            .map(|s| (s.executed, s.errors, s.cold, s.p50_ms, s.p99_ms, s.peak_memory_mb))
            .collect();
        assert_eq!(
            figures,
            [
                (2, 1, 1, Some(10.0), Some(20.0), Some(10.0)),
                (1, 0, 0, Some(30.0), Some(30.0), Some(15.0)),
                (0, 0, 0, None, None, None),
                (1, 0, 0, Some(40.0), Some(40.0), Some(20.0)),
            ]
        );
        assert_eq!((series.p50_ms, series.p99_ms), (Some(20.0), Some(40.0)));
    }
}
