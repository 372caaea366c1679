//! What the client of the sandboxes counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::nodes::NodeCensus;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) retries: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) ejections: AtomicU64,
    pub(crate) unavailable: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, nodes: NodeCensus) -> RemoteMetrics {
        RemoteMetrics {
            nodes,
            retries: self.retries.load(Relaxed),
            failures: self.failures.load(Relaxed),
            lost: self.lost.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            unavailable: self.unavailable.load(Relaxed),
        }
    }
}

/// The figures of this moment. `Display` writes them in the Prometheus text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMetrics {
    pub(crate) nodes: NodeCensus,
    /// Calls that another node was asked to run after one had not begun them.
    pub retries: u64,
    /// Requests to nodes that failed before they were taken, and checks that failed.
    pub failures: u64,
    /// Calls whose node was lost while they were in it, or had them and said nothing.
    pub lost: u64,
    /// Times a node was taken out.
    pub ejections: u64,
    /// Calls for which no node was found.
    pub unavailable: u64,
}

impl fmt::Display for RemoteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = &self.nodes;
        writeln!(f, "# TYPE cloudserve_remote_nodes gauge")?;
        for (state, count) in [
            ("ready", nodes.ready),
            ("not_ready", nodes.not_ready),
            ("ejected", nodes.ejected),
            ("unknown", nodes.unknown),
        ] {
            writeln!(f, "cloudserve_remote_nodes{{state=\"{state}\"}} {count}")?;
        }
        for (name, kind, value) in [
            ("in_flight", "gauge", nodes.in_flight as u64),
            ("retries_total", "counter", self.retries),
            ("failures_total", "counter", self.failures),
            ("lost_calls_total", "counter", self.lost),
            ("ejections_total", "counter", self.ejections),
            ("unavailable_total", "counter", self.unavailable),
        ] {
            writeln!(f, "# TYPE cloudserve_remote_{name} {kind}")?;
            writeln!(f, "cloudserve_remote_{name} {value}")?;
        }
        Ok(())
    }
}
