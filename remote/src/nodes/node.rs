//! One sandbox: where it is, how it is, and what this process has on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// A node that did not fail for so long is forgiven what it did before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// One sandbox.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    seed: u64,
    in_flight: AtomicUsize,
    /// One, for whoever asks it how it is.
    pub(crate) checks: Arc<Semaphore>,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    /// What it said last; `None` before it said anything.
    is_ready: Option<bool>,
    failures_in_a_row: u32,
    ejections: u32,
    ejected_until: Option<Instant>,
    failed_at: Option<Instant>,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready,
    /// It was not asked yet.
    Unknown,
    /// It says that it takes no calls.
    NotReady,
    /// It failed, and is left alone for a while.
    Ejected,
}

/// A number of something, the same in every process and unlike that of anything else.
pub(crate) fn spread(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

impl Node {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let seed = spread(address.to_string().as_bytes());
        let health = Health {
            is_ready: None,
            failures_in_a_row: 0,
            ejections: 0,
            ejected_until: None,
            failed_at: None,
        };
        Self {
            address,
            seed,
            in_flight: AtomicUsize::new(0),
            checks: Arc::new(Semaphore::new(1)),
            health: Mutex::new(health),
        }
    }

    /// Its weight for a key: of all nodes, the one with the highest is the key's first.
    pub(crate) fn score(&self, key: u64) -> u64 {
        // The finaliser of SplitMix64: every bit of either changes every bit of the result.
        let mut mixed = self.seed ^ key;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// A request is on its way for as long as this is held.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.in_flight.fetch_add(1, Relaxed);
        Occupied(self.clone())
    }

    pub(crate) fn condition(&self) -> Condition {
        let health = self.health.lock();
        if health.ejected_until.is_some() {
            return Condition::Ejected;
        }
        match health.is_ready {
            Some(true) => Condition::Ready,
            Some(false) => Condition::NotReady,
            None => Condition::Unknown,
        }
    }

    /// It answered a check. Ends an ejection whose time is over.
    pub(crate) fn said(&self, is_ready: bool) {
        let mut health = self.health.lock();
        health.is_ready = Some(is_ready);
        if health.ejected_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        health.ejected_until = None;
        health.failures_in_a_row = 0;
        if health.failed_at.is_some_and(|at| at.elapsed() > FORGIVEN_AFTER) {
            health.ejections = 0;
        }
    }

    /// It took a call.
    pub(crate) fn took(&self) {
        let mut health = self.health.lock();
        if health.failures_in_a_row > 0 && health.ejected_until.is_none() {
            health.failures_in_a_row = 0;
        }
    }

    /// It said that it takes no calls. Believed until the next check.
    pub(crate) fn declined(&self) {
        self.health.lock().is_ready = Some(false);
    }

    /// It could not be reached. Whether it has failed too often.
    pub(crate) fn failed(&self, too_often: u32) -> bool {
        let mut health = self.health.lock();
        health.failed_at = Some(Instant::now());
        health.failures_in_a_row = health.failures_in_a_row.saturating_add(1);
        health.ejected_until.is_none() && health.failures_in_a_row >= too_often
    }

    /// Leaves it alone for a while; `time` says for how long, given how often it was before.
    pub(crate) fn eject(&self, time: impl FnOnce(u32) -> Duration) {
        let mut health = self.health.lock();
        let until = Instant::now() + time(health.ejections);
        health.ejections = health.ejections.saturating_add(1);
        health.ejected_until = Some(until);
    }
}

/// A place on a node.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<Node>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
