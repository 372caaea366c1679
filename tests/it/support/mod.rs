//! A server to test and a client to test it with.

mod account;
mod client;
mod process;
mod role;
mod server;
mod web_socket;

use std::time::{Duration, Instant};

pub(crate) use account::{Account, Answer, Deploy, Deployed, deploy, send, try_send};
pub(crate) use client::Client;
pub(crate) use process::{
    age, children_of, cloudserve, cpu_ticks, is_alive, peak_growth, peak_memory, signal, spawn,
};
pub(crate) use role::RoleProcess;
pub(crate) use server::{Home, TestServer, metric_at, npm_cache, server};
pub(crate) use web_socket::{Message, Socket};

/// What something may take that is not what the test is about.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `attempt` gives a value; fails, naming `what`, after [`PATIENCE`].
pub(crate) async fn wait_for<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
