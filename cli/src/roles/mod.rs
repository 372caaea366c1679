//! One role in a process of its own, over MongoDB, S3 and other processes.
//!
//! A role gets the secrets it needs and no others, and does not start without them. All end alike:
//! first they say that they are not ready, then what has begun finishes, for a bounded time.

mod api;
mod frontend;
mod gateway;
mod sandbox;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cloudserve_gateway::Downstream;
use cloudserve_remote::Sandboxes;
use tracing::info;

use crate::config::Config;
use crate::process::{ServeError, Signals, millis, raise_file_limit};
use crate::secrets::FromEnvironment;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The control plane.
    Api,
    /// The data plane.
    Gateway,
    /// What runs functions.
    Sandbox,
    /// The dashboard's files.
    Frontend,
}

/// Runs a role until a signal ends it.
pub(crate) async fn run(
    role: Role,
    config: Config,
    given: &FromEnvironment,
) -> Result<ExitCode, ServeError> {
    raise_file_limit();
    match role {
        Role::Api => api::run(config, given).await,
        Role::Gateway => gateway::run(config, given).await,
        Role::Sandbox => sandbox::run(config, given).await,
        Role::Frontend => frontend::run(config).await,
    }
}

/// Goes on for a while after a signal, so that whoever balances load looks for others; a second
/// signal cuts it short.
async fn give_notice(config: &Config, signals: &mut Signals) {
    if config.drain_notice_ms > 0 {
        info!(ms = config.drain_notice_ms, "not ready any more; goes on for a while");
        let notice = millis(config.drain_notice_ms);
        tokio::select! {
            () = tokio::time::sleep(notice) => {}
            () = signals.next() => {}
        }
    }
}

/// When what has begun must have finished.
fn begin_to_drain(config: &Config) -> Instant {
    info!("draining: what has begun finishes; another signal ends at once");
    Instant::now() + millis(config.drain_timeout_ms)
}

/// The sandboxes, as a gateway shows them.
struct Shown(Sandboxes);

impl Downstream for Shown {
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn metrics(&self) -> String {
        self.0.metrics().to_string()
    }
}

impl Shown {
    fn new(sandboxes: &Sandboxes) -> Arc<Self> {
        Arc::new(Self(sandboxes.clone()))
    }
}
