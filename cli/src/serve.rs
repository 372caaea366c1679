//! `cloudserve serve`: every role in one process, over one data directory or over servers.
//!
//! Started in the order in which the parts need each other, ended in the reverse one. Invariant:
//! what was acknowledged is on disk before the acknowledgement, so an orderly end only spares
//! work; it is never needed for correctness.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use cloudserve_api::{Api, ApiOptions};
use cloudserve_artifacts::{Cache, CacheError, CacheOptions};
use cloudserve_gateway::{Gateway, GatewayOptions};
use cloudserve_identity::{Authenticator, Sealer, SessionTokens};
use cloudserve_sandbox::{NpmBuilder, NpmOptions, Sandbox, SandboxOptions, StartError};
use cloudserve_store::telemetry::TelemetryStore;
use cloudserve_store::{DataDirLock, OpenError, Stores, Timestamp};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, RequireJail};
use crate::programs::{Found, ProgramError};
use crate::secrets::{FromEnvironment, Secrets, SecretsError};
use crate::status;
use crate::storage::{Storage, StorageError};

/// How often old logs are removed.
const EXPIRE_LOGS_EVERY: Duration = Duration::from_secs(60 * 60);

/// On shutdown, time for requests to the API that have begun.
const API_DRAIN: Duration = Duration::from_secs(5);

/// Exit code after a second signal.
const INTERRUPTED: u8 = 130;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("a program is missing")]
    Program(#[from] ProgramError),
    #[error("the storage is not chosen completely")]
    Storage(#[from] StorageError),
    #[error("the storage cannot be used")]
    Open(#[from] OpenError),
    #[error("the secrets cannot be used")]
    Secrets(#[from] SecretsError),
    #[error("the artifact cache cannot be used")]
    Cache(#[from] CacheError),
    #[error("the sandbox does not start")]
    Sandbox(#[from] StartError),
    #[error("npm's work directory cannot be used")]
    Npm(#[source] io::Error),
    #[error("cannot listen on {address} ({variable})")]
    Listen {
        address: SocketAddr,
        variable: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error("the {part} has ended by itself")]
    Ended { part: &'static str },
}

/// Runs the server until a signal ends it.
pub(crate) async fn run(config: Config, given: &FromEnvironment) -> Result<ExitCode, ServeError> {
    raise_file_limit();
    let programs = Found::look_up(&config.programs)?;
    let storage = Storage::choose(&config, given)?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let secrets = Secrets::load(lock.data_dir(), given)?;
    let mut signals = Signals::new()?;
    let api_listener = listen(config.api.listen, "CLOUDSERVE_API_LISTEN").await?;
    let gateway_listener = listen(config.gateway.listen, "CLOUDSERVE_GATEWAY_LISTEN").await?;
    let addresses = (
        api_listener.local_addr().map_err(ServeError::Signals)?,
        gateway_listener.local_addr().map_err(ServeError::Signals)?,
    );
    let stores = storage.open(&lock).await?;
    let roles = Roles::start(&config, &programs, &secrets, &lock, stores, addresses.1)?;
    announce(addresses);

    let stop = CancellationToken::new();
    let mut deployer = tokio::spawn(roles.api.run_deployer(stop.clone().cancelled_owned()));
    let expiry = tokio::spawn(expire_logs(roles.telemetry.clone(), config.log_retention_days));
    let mut gateway = {
        let (gateway, stop) = (roles.gateway.clone(), stop.clone());
        tokio::spawn(async move { gateway.serve(gateway_listener, stop.cancelled_owned()).await })
    };
    let mut api = {
        let router =
            status::router(roles.gateway.clone(), roles.sandbox.clone()).merge(roles.api.router());
        tokio::spawn(serve_api(api_listener, router, stop.clone()))
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
        let deadline = begun + Duration::from_millis(config.drain_timeout_ms.into());
        stop.cancel();
        expiry.abort();
        let _ = tokio::time::timeout_at(deadline.into(), gateway).await;
        let _ = tokio::time::timeout_at(deadline.into(), deployer).await;
        // What may take longer waits for a deploy, which is in the queue.
        let api_deadline = deadline.min(begun + API_DRAIN);
        let _ = tokio::time::timeout_at(api_deadline.into(), &mut api).await;
        api.abort();
        roles.gateway.drain().await;
        roles.sandbox.drain(deadline).await;
    };
    tokio::select! {
        () = drain => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => {
            warn!("stopped at once; calls were cut off");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
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
        let limits = config.limits.clone();
        let lifetime = Duration::from_secs(u64::from(config.api.session_hours) * 60 * 60);
        let tokens = SessionTokens::new(&secrets.jwt, lifetime);
        let authenticator =
            Authenticator::new(stores.accounts.clone(), tokens, stores.changes.as_ref());
        let sealer = Sealer::with_previous(&secrets.master, &secrets.previous);
        let cache = Arc::new(Cache::open(
            &data_dir.join("cache"),
            stores.artifacts.clone(),
            CacheOptions { limits: limits.clone(), ..CacheOptions::default() },
        )?);
        let usual = SandboxOptions::default();
        let sandbox = Sandbox::start(
            SandboxOptions {
                worker_program: programs.worker.clone(),
                work_dir: data_dir.join("workers"),
                launch: config.sandbox.launch,
                pool_size: config.sandbox.pool_size,
                max_workers: config.sandbox.max_workers.unwrap_or(usual.max_workers),
                idle_evict_ms: config.sandbox.idle_evict_ms,
                egress_allow: config.sandbox.egress_allow.clone(),
                require_full_jail: config.sandbox.require_jail == RequireJail::Full,
                platform: limits.clone(),
                ..usual
            },
            cache.clone(),
        )?;
        let npm = NpmOptions {
            npm: programs.npm.clone(),
            cache_dir: config.programs.npm_cache.clone(),
            work_dir: data_dir.join("npm"),
            limits: limits.clone(),
            ..NpmOptions::default()
        };
        let builder = NpmBuilder::new(npm, stores.artifacts.clone()).map_err(ServeError::Npm)?;
        let gateway = Gateway::new(
            GatewayOptions {
                rate_per_second: config.gateway.rate_per_second,
                trust_forwarded: config.gateway.trust_forwarded,
                drain_ms: config.drain_timeout_ms,
                ..GatewayOptions::default()
            },
            stores.clone(),
            authenticator.clone(),
            sealer.clone(),
            Arc::new(sandbox.clone()),
        );
        let telemetry = stores.telemetry.clone();
        let gateway_url =
            config.gateway.public_url.clone().unwrap_or_else(|| url_of(gateway_address));
        let api = Api::new(
            ApiOptions {
                work_dir: data_dir.join("builds"),
                esbuild: programs.esbuild.clone(),
                gateway_url: Some(gateway_url),
                invoke_url: Some(url_of(gateway_address)),
                secure_cookie: config.api.secure_cookie,
                limits,
                deploys_in_parallel: config.api.deploys_in_parallel,
                drain_ms: config.drain_timeout_ms,
                rate_per_second: config.gateway.rate_per_second,
                ..ApiOptions::default()
            },
            stores,
            authenticator,
            sealer,
            Arc::new(builder),
            Arc::new(sandbox.clone()),
            cache,
        );
        Ok(Self { api, gateway, sandbox, telemetry })
    }
}

async fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen {
        address,
        variable,
        source,
    })
}

/// Tells people and scripts where the server is; the line is stable.
fn announce((api, gateway): (SocketAddr, SocketAddr)) {
    // Nobody may be reading standard output.
    let _ = writeln!(io::stdout(), "listening api=http://{api} gateway=http://{gateway}");
}

async fn serve_api(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Every connection takes a descriptor and every worker four; the usual soft limit of 1 024 is for
/// programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files could not be raised");
    }
}

/// Where callers reach a gateway that listens here.
fn url_of(mut gateway: SocketAddr) -> String {
    if gateway.ip().is_unspecified() {
        gateway.set_ip(match gateway {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{gateway}")
}

async fn expire_logs(telemetry: Arc<dyn TelemetryStore>, retention_days: u32) {
    let retention_ms = i64::from(retention_days) * 24 * 60 * 60 * 1_000;
    let mut every = tokio::time::interval(EXPIRE_LOGS_EVERY);
    loop {
        every.tick().await;
        let oldest = Timestamp(Timestamp::now().0.saturating_sub(retention_ms));
        match telemetry.expire_logs(oldest).await {
            Ok(0) => {}
            Ok(rows) => info!(rows, "old logs removed"),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "old logs were not removed");
            }
        }
    }
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
