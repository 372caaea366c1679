//! What the sandbox counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::death::DeathCause;
use crate::state::Census;

/// Figures for `/metrics`. Counters grow, the rest is of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxMetrics {
    /// Worker processes that are booting.
    pub workers_starting: usize,
    /// Booted workers that wait for a function.
    pub workers_ready: usize,
    /// Workers that are loading a function.
    pub workers_loading: usize,
    /// Workers that wait for a call of their function.
    pub workers_idle: usize,
    /// Workers in a call.
    pub workers_busy: usize,
    /// Worker processes, those that are ending included.
    pub processes: usize,
    /// Calls that wait for a worker.
    pub queue_length: usize,
    /// Calls that were admitted, since start.
    pub calls: u64,
    /// Workers that loaded a function, since start.
    pub cold_starts: u64,
    /// Calls that were refused because of a full or slow queue, since start.
    pub refused: u64,
    /// Connections of functions that were refused, since start.
    pub egress_refused: u64,
    /// Workers that ended, since start, by cause.
    pub deaths: Vec<(&'static str, u64)>,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) cold_starts: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) egress_refused: AtomicU64,
    deaths: [AtomicU64; DeathCause::LABELS.len()],
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_death(&self, cause: DeathCause) {
        Self::count(&self.deaths[cause.index()]);
    }

    pub(crate) fn snapshot(&self, census: Census) -> SandboxMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SandboxMetrics {
            workers_starting: census.starting,
            workers_ready: census.ready,
            workers_loading: census.loading,
            workers_idle: census.idle,
            workers_busy: census.busy,
            processes: census.processes,
            queue_length: census.queued,
            calls: read(&self.calls),
            cold_starts: read(&self.cold_starts),
            refused: read(&self.refused),
            egress_refused: read(&self.egress_refused),
            deaths: DeathCause::LABELS.into_iter().zip(self.deaths.iter().map(read)).collect(),
        }
    }
}
