//! Counters of the data plane.

use std::fmt::{self, Write};
use std::iter;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cloudserve_protocol::call::micros;
use cloudserve_protocol::fault::FaultClass;

use crate::refusal::{Code, Refusal};

/// Code of a call without a fault.
pub(crate) const OK: &str = "ok";

/// Upper bounds of the latency buckets, in microseconds.
const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

#[derive(Default)]
pub(crate) struct Metrics {
    succeeded: AtomicU64,
    /// By [`FaultClass::ALL`].
    failed: [AtomicU64; FaultClass::ALL.len()],
    /// By [`Code::NAMES`].
    refusals: [AtomicU64; Code::NAMES.len()],
    cold: AtomicU64,
    in_flight: AtomicI64,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    duration_us: AtomicU64,
    pub(crate) connections: AtomicI64,
    pub(crate) usage_stored: AtomicU64,
    pub(crate) logs_dropped: AtomicU64,
    pub(crate) store_failures: AtomicU64,
}

impl Metrics {
    pub(crate) fn began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, fault: Option<FaultClass>, cold: bool, duration: Duration) {
        self.in_flight.fetch_sub(1, Relaxed);
        let calls = match fault {
            None => &self.succeeded,
            Some(class) => &self.failed[class as usize],
        };
        calls.fetch_add(1, Relaxed);
        if cold {
            self.cold.fetch_add(1, Relaxed);
        }
        let us = micros(duration);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.duration_us.fetch_add(us, Relaxed);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.refusals[refusal.code() as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, unstored_rows: usize) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let codes = iter::once(OK).chain(FaultClass::ALL.map(FaultClass::code));
        let calls = iter::once(&self.succeeded).chain(&self.failed).map(read);
        MetricsSnapshot {
            calls: codes.zip(calls).collect(),
            refusals: Code::NAMES.into_iter().zip(self.refusals.iter().map(read)).collect(),
            cold_calls: read(&self.cold),
            in_flight: self.in_flight.load(Relaxed),
            connections: self.connections.load(Relaxed),
            latency: self.buckets.iter().map(read).collect(),
            duration_us: read(&self.duration_us),
            usage_stored: read(&self.usage_stored),
            unstored_rows,
            logs_dropped: read(&self.logs_dropped),
            store_failures: read(&self.store_failures),
        }
    }
}

/// The counters at one instant. `Display` writes them in the Prometheus text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Calls that ended, by code.
    pub calls: Vec<(&'static str, u64)>,
    /// Requests that reached no function, by code.
    pub refusals: Vec<(&'static str, u64)>,
    /// Calls that loaded their function.
    pub cold_calls: u64,
    /// Calls that have begun and not ended.
    pub in_flight: i64,
    /// Open connections.
    pub connections: i64,
    /// Calls per latency bucket; not cumulative.
    pub latency: Vec<u64>,
    /// Sum of all latencies.
    pub duration_us: u64,
    /// Usage rows stored.
    pub usage_stored: u64,
    /// Places of the usage queue in use: calls in flight and rows that wait.
    pub unstored_rows: usize,
    /// Log rows whose lines were dropped because storage was too slow.
    pub logs_dropped: u64,
    /// Writes of telemetry that failed and were tried again.
    pub store_failures: u64,
}

impl fmt::Display for MetricsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        by_code(f, "cloudserve_gateway_calls_total", &self.calls)?;
        by_code(f, "cloudserve_gateway_refusals_total", &self.refusals)?;
        for (name, kind, value) in [
            ("cold_calls_total", "counter", self.cold_calls.to_string()),
            ("in_flight", "gauge", self.in_flight.to_string()),
            ("connections", "gauge", self.connections.to_string()),
            ("usage_rows_stored_total", "counter", self.usage_stored.to_string()),
            ("usage_queue_rows", "gauge", self.unstored_rows.to_string()),
            ("logs_dropped_total", "counter", self.logs_dropped.to_string()),
            ("telemetry_failures_total", "counter", self.store_failures.to_string()),
        ] {
            writeln!(f, "# TYPE cloudserve_gateway_{name} {kind}")?;
            writeln!(f, "cloudserve_gateway_{name} {value}")?;
        }
        let name = "cloudserve_gateway_duration_seconds";
        writeln!(f, "# TYPE {name} histogram")?;
        let mut calls = 0;
        for (place, count) in self.latency.iter().enumerate() {
            calls += count;
            match BOUNDS_US.get(place) {
                Some(bound) => {
                    let bound = Duration::from_micros(*bound).as_secs_f64();
                    writeln!(f, "{name}_bucket{{le=\"{bound}\"}} {calls}")?;
                }
                None => writeln!(f, "{name}_bucket{{le=\"+Inf\"}} {calls}")?,
            }
        }
        writeln!(f, "{name}_sum {}", Duration::from_micros(self.duration_us).as_secs_f64())?;
        writeln!(f, "{name}_count {calls}")
    }
}

fn by_code(f: &mut impl Write, name: &str, counters: &[(&str, u64)]) -> fmt::Result {
    writeln!(f, "# TYPE {name} counter")?;
    counters.iter().try_for_each(|(code, count)| writeln!(f, "{name}{{code=\"{code}\"}} {count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_counter_and_calls_balance() {
        let metrics = Metrics::default();
        for class in FaultClass::ALL {
            metrics.began();
            metrics.ended(Some(class), true, Duration::from_secs(60));
        }
        metrics.began();
        metrics.ended(None, false, Duration::from_micros(100));
        let snapshot = metrics.snapshot(0);
        assert!(snapshot.calls.iter().all(|(_, n)| *n == 1), "{snapshot:?}");
        assert_eq!(snapshot.in_flight, 0);
        let text = snapshot.to_string();
        assert!(text.contains("duration_seconds_bucket{le=\"0.0001\"} 1\n"), "{text}");
        assert!(text.contains("duration_seconds_bucket{le=\"+Inf\"} 14\n"), "{text}");
    }

    #[test]
    fn a_refusal_is_counted_as_what_it_is_called() {
        let metrics = Metrics::default();
        let calls =
            [Refusal::NoSuchPath, Refusal::TooOften { per_second: 1 }, Refusal::Unavailable];
        for (refusal, n) in calls.iter().zip(1..) {
            (0..n).for_each(|_| metrics.refused(refusal));
        }
        let counted: Vec<_> =
            metrics.snapshot(0).refusals.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("not_found", 1), ("rate_limit", 2), ("unavailable", 3)]);
    }
}
