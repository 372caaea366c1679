//! `cloudserve serve`: every role in one process, over one data directory or over servers.
//!
//! Started in the order in which the parts need each other, ended in the reverse one. Invariant:
//! what was acknowledged is on disk before the acknowledgement, so an orderly end only spares
//! work; it is never needed for correctness.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_api::Api;
use cloudserve_gateway::Gateway;
use cloudserve_protocol::fault::Chain;
use cloudserve_sandbox::Sandbox;
use cloudserve_store::telemetry::TelemetryStore;
use cloudserve_store::{DataDirLock, StoreError, Stores, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::ops::Ops;
use crate::parts::{self, ApiParts};
use crate::process::{
    ServeError, Signals, announce, end, finish, listen, millis, raise_file_limit, serve_public,
    url_of,
};
use crate::programs::Found;
use crate::secrets::{FromEnvironment, Secrets};
use crate::status;
use crate::storage::Storage;

/// How often old logs and calls are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

/// On shutdown, time for requests to the API that have begun.
const API_DRAIN: Duration = Duration::from_secs(5);

/// Runs the server until a signal ends it.
pub(crate) async fn run(config: Config, given: &FromEnvironment) -> Result<ExitCode, ServeError> {
    raise_file_limit();
    let programs = Found::look_up(&config.programs)?;
    let storage = Storage::choose(&config, given)?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let mut signals = Signals::new()?;
    let (api_listener, api_address) = listen(config.api.listen, "CLOUDSERVE_API_LISTEN").await?;
    let (gateway_listener, gateway_address) =
        listen(config.gateway.listen, "CLOUDSERVE_GATEWAY_LISTEN").await?;
    let ops = Ops::listen(&config).await?;
    let stores = storage.open(&lock).await?;
    let secrets = Secrets::load_for(&stores, lock.data_dir(), given).await?;
    let roles = Roles::start(&config, &programs, &secrets, &lock, stores, gateway_address)?;
    announce(&[("api", api_address), ("gateway", gateway_address)], &ops);

    let stop = CancellationToken::new();
    let mut deployer = tokio::spawn(roles.api.run_deployer(stop.clone().cancelled_owned()));
    let (log_days, call_days) = (config.log_retention_days, config.usage_retention_days);
    let expiry = tokio::spawn(expire(roles.telemetry.clone(), log_days, call_days));
    let mut gateway = {
        let (gateway, stop) = (roles.gateway.clone(), stop.clone());
        tokio::spawn(async move { gateway.serve(gateway_listener, stop.cancelled_owned()).await })
    };
    let mut api = {
        let router =
            status::router(roles.gateway.clone(), roles.sandbox.clone()).merge(roles.api.router());
        ops.serve(&config, router.clone());
        let connections = parts::connections(&config);
        let drain_ms = config.drain_timeout_ms;
        tokio::spawn(serve_public(api_listener, router, connections, drain_ms, stop.clone()))
    };

    tokio::select! {
        () = signals.next() => {}
        // A server with a part missing looks alive and is not.
        _ = &mut deployer => return Err(ServeError::Ended { part: "deployer" }),
        _ = &mut gateway => return Err(ServeError::Ended { part: "gateway" }),
        _ = &mut api => return Err(ServeError::Ended { part: "API" }),
    }
    info!("draining: calls that have begun finish; a second signal ends at once");
    let drain = async {
        let begun = Instant::now();
        let deadline = begun + millis(config.drain_timeout_ms);
        stop.cancel();
        expiry.abort();
        let _ = tokio::time::timeout_at(deadline.into(), gateway).await;
        let _ = tokio::time::timeout_at(deadline.into(), deployer).await;
        // What may take longer waits for a deploy, which is in the queue.
        finish(api, deadline.min(begun + API_DRAIN)).await;
        roles.sandbox.drain(deadline).await;
        // After it: what calls have used that were cut off is known by now.
        roles.gateway.drain().await;
    };
    end(&mut signals, drain).await
}

/// The roles of this process, wired together.
struct Roles {
    api: Api,
    gateway: Gateway,
    sandbox: Sandbox,
    telemetry: Arc<dyn TelemetryStore>,
}

impl Roles {
    fn start(
        config: &Config,
        programs: &Found,
        secrets: &Secrets,
        lock: &DataDirLock,
        stores: Stores,
        gateway_address: SocketAddr,
    ) -> Result<Self, ServeError> {
        let data_dir = lock.data_dir();
        let identity = parts::identity(config, secrets, &stores);
        let cache = parts::cache(config, data_dir, stores.artifacts.clone())?;
        let sandbox = parts::sandbox(config, &programs.worker, data_dir, cache.clone())?;
        let builder = parts::builder(config, &programs.npm, data_dir, stores.artifacts.clone())?;
        let invoker = Arc::new(sandbox.clone());
        let gateway = parts::gateway(config, stores.clone(), identity.clone(), invoker, None)?;
        let telemetry = stores.telemetry.clone();
        let here = url_of(gateway_address);
        let parts = ApiParts {
            esbuild: &programs.esbuild,
            data_dir,
            stores,
            identity,
            builder: Arc::new(builder),
            loader: Arc::new(sandbox.clone()),
            cache,
            gateway_url: Some(config.gateway.public_url.clone().unwrap_or_else(|| here.clone())),
            invoke_url: Some(here),
        };
        Ok(Self { api: parts::api(config, parts), gateway, sandbox, telemetry })
    }
}

/// Removes logs and calls when they are so many days old; calls stay for good if that is 0.
async fn expire(telemetry: Arc<dyn TelemetryStore>, log_days: u32, call_days: u32) {
    let before = |days: u32| {
        let age_ms = i64::from(days) * 24 * 60 * 60 * 1_000;
        Timestamp(Timestamp::now().0.saturating_sub(age_ms))
    };
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        every.tick().await;
        tell("logs", telemetry.expire_logs(before(log_days)).await);
        if call_days > 0 {
            tell("calls", telemetry.expire_usage(before(call_days)).await);
        }
    }
}

fn tell(what: &'static str, removed: Result<u64, StoreError>) {
    match removed {
        Ok(0) => {}
        Ok(rows) => info!(rows, "old {what} removed"),
        Err(error) => warn!(error = %Chain(&error), "old {what} were not removed"),
    }
}
