//! Settings of both ends. Every bound has its unit in its name.

use std::time::Duration;

/// Settings of [`Sandboxes`](crate::Sandboxes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// How long connecting to a node may take.
    pub connect_timeout_ms: u32,
    /// How long a node may take to say that it has taken what it is asked for, connecting included.
    pub take_timeout_ms: u32,
    /// Connections to one node that are kept while they are idle.
    pub idle_connections: usize,
    /// How often names are resolved again.
    pub resolve_ms: u32,
    /// Nodes that are used; of more, the first.
    pub max_nodes: usize,
    /// How often each node is asked how it is.
    pub check_ms: u32,
    /// How long its answer may take.
    pub check_timeout_ms: u32,
    /// Failures in a row after which a node gets no calls for a while.
    pub eject_after_failures: u32,
    /// How long at first; doubled each time.
    pub eject_ms: u32,
    /// How long at most.
    pub eject_max_ms: u32,
    /// Calls in flight on one node, as this process counts them, below which calls of a function
    /// stay on its first node; beyond, a node takes a quarter more than the average.
    pub spread_from_calls: usize,
    /// How long a node is looked for that takes a call; the one that is asked last may still take as
    /// long as connecting may.
    pub unavailable_wait_ms: u32,
    /// Pause after all nodes have refused.
    pub retry_pause_ms: u32,
    /// How long after a deadline a node may take to say that it has passed.
    pub deadline_grace_ms: u32,
    /// After the consumer of an answer has gone: how long the node may take to say what the call
    /// used.
    pub cancel_wait_ms: u32,
    /// How long loading a version may take, with everything it waits for.
    pub load_timeout_ms: u32,
    /// How long building a dependency set may take, with everything it waits for.
    pub build_timeout_ms: u32,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            take_timeout_ms: 10_000,
            idle_connections: 1_024,
            resolve_ms: 2_000,
            max_nodes: 1_000,
            check_ms: 500,
            check_timeout_ms: 2_000,
            eject_after_failures: 3,
            eject_ms: 1_000,
            eject_max_ms: 30_000,
            spread_from_calls: 8,
            unavailable_wait_ms: 2_000,
            retry_pause_ms: 50,
            deadline_grace_ms: 600,
            cancel_wait_ms: 2_000,
            load_timeout_ms: 60_000,
            build_timeout_ms: 600_000,
        }
    }
}

impl RemoteOptions {
    pub(crate) fn eject(&self, times: u32) -> Duration {
        let doubled = millis(self.eject_ms).saturating_mul(1 << times.min(16));
        doubled.min(millis(self.eject_max_ms))
    }
}

/// Settings of [`Server`](crate::Server).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Calls that are taken at the same time; more are refused, and go to other nodes.
    pub max_calls: usize,
    /// Body of a request that is no call: a version, or a dependency set with its lock file.
    pub max_message_bytes: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { max_calls: 10_000, max_message_bytes: 64 * 1024 * 1024 }
    }
}

pub(crate) fn millis(value: u32) -> Duration {
    Duration::from_millis(value.into())
}
