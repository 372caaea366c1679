//! Settings of the gateway. Every bound is here, with its unit in its name.

use std::time::Duration;

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Calls per second of one credential, or of one address where there is none; 0 sets no
    /// bound. As many may come at once after a quiet second.
    pub rate_per_second: u32,
    /// Credentials whose rate is watched at the same time; the least active is forgotten first.
    pub rate_entries: u64,
    /// How long the sums of an account with a quota are trusted before what other gateways counted
    /// is read again.
    pub quota_refresh_ms: u32,
    /// Functions that are remembered, per view (owners, strangers).
    pub route_entries: u64,
    /// Calls in flight plus usage rows not yet stored. Calls beyond wait, then get 503: no usage
    /// row is ever dropped.
    pub usage_queue_rows: usize,
    /// Log text not yet stored. Beyond it, lines are dropped and counted.
    pub log_queue_bytes: usize,
    /// Log text of one account's functions that is stored in a day (UTC); what is beyond is dropped, and
    /// the log says so. 0 sets no bound.
    pub log_bytes_per_day: u64,
    /// Rows stored in one write.
    pub telemetry_batch_rows: usize,
    /// How long rows wait for others to be stored with.
    pub telemetry_interval_ms: u32,
    /// Request bodies of known length up to this are read whole before the call; longer ones are
    /// passed on piece by piece.
    pub whole_body_bytes: u64,
    /// Of an account's functions, bytes of answers that are whole in memory while their callers read
    /// them. Beyond it its calls get 429 until some are read; answers to calls that are under way
    /// by then still go out. All accounts together have four times as much; beyond that each may
    /// have an eighth of its own. 0 sets no bound.
    pub unread_answer_bytes: u64,
    /// How much of a refused body is read and thrown away, so that its sender sees the answer and
    /// not a reset connection.
    pub refused_body_bytes: u64,
    /// How long it is read.
    pub refused_body_ms: u32,
    /// An answer comes at the latest this long after the deadline, whatever the sandbox does.
    /// Longer than the sandbox takes to kill a worker and say so, or its report is lost.
    pub deadline_grace_ms: u32,
    /// After the caller has hung up: how long the sandbox may take to say what the call used.
    /// Longer than the time it gives the function to end.
    pub hang_up_wait_ms: u32,
    /// Take `x-forwarded-*` from the caller. Only behind a proxy that sets them. A caller's address
    /// is then the last one in `x-forwarded-for`.
    pub trust_forwarded: bool,
    /// Bounds of connections.
    pub connections: ConnectionOptions,
    /// On shutdown, time for calls that have begun to end, and again for rows to be stored.
    pub drain_ms: u32,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            rate_per_second: 0,
            rate_entries: 100_000,
            quota_refresh_ms: 1_000,
            route_entries: 10_000,
            usage_queue_rows: 65_536,
            log_queue_bytes: 64 * 1024 * 1024,
            log_bytes_per_day: 1024 * 1024 * 1024,
            telemetry_batch_rows: 2_000,
            telemetry_interval_ms: 50,
            whole_body_bytes: 64 * 1024,
            unread_answer_bytes: 256 * 1024 * 1024,
            refused_body_bytes: 8 * 1024 * 1024,
            refused_body_ms: 2_000,
            deadline_grace_ms: 800,
            hang_up_wait_ms: 2_000,
            trust_forwarded: false,
            connections: ConnectionOptions::default(),
            drain_ms: 30_000,
        }
    }
}

impl GatewayOptions {
    pub(crate) fn deadline_grace(&self) -> Duration {
        Duration::from_millis(self.deadline_grace_ms.into())
    }

    pub(crate) fn hang_up_wait(&self) -> Duration {
        Duration::from_millis(self.hang_up_wait_ms.into())
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms.into())
    }
}

/// Bounds of the connections of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Open connections; more wait in the kernel's queue.
    pub max_connections: usize,
    /// A request line with its headers; longer ones get 431. At least 8 KB. Looked at between
    /// reads, so somewhat more may pass.
    pub max_head_bytes: usize,
    /// Time until the next request's headers have come; then the connection is closed. It also
    /// bounds how long a connection may idle.
    pub head_timeout_ms: u32,
    /// Time in which some of what waits to be sent must be taken; then the connection is closed.
    pub write_timeout_ms: u32,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_head_bytes: 64 * 1024,
            head_timeout_ms: 75_000,
            write_timeout_ms: 30_000,
        }
    }
}

impl ConnectionOptions {
    pub(crate) fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms.into())
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.into())
    }
}
