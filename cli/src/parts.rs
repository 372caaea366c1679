//! The parts of a server, each made of settings in one place, whatever process it is in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloudserve_api::{Api, ApiOptions};
use cloudserve_artifacts::{Cache, CacheError, CacheOptions};
use cloudserve_gateway::{
    ConnectionOptions, Downstream, Gateway, GatewayOptions, TraceOptions, Tracer,
};
use cloudserve_identity::{Authenticator, Sealer, SessionTokens};
use cloudserve_protocol::artifact::ArtifactStore;
use cloudserve_protocol::build::DependencyBuilder;
use cloudserve_protocol::call::{Invoker, VersionLoader};
use cloudserve_remote::{InternalToken, RemoteOptions, Sandboxes};
use cloudserve_sandbox::{NpmBuilder, NpmOptions, Sandbox, SandboxOptions};
use cloudserve_store::Stores;

use crate::config::{Config, RequireJail};
use crate::process::ServeError;
use crate::secrets::Secrets;

/// Time that a deploy, a load and a build have beyond what each may take: for queues, storage and
/// other attempts.
const REMOTE_MARGIN_MS: u32 = 60_000;

/// Who may do what, alike in API and gateway.
pub(crate) fn identity(
    config: &Config,
    secrets: &Secrets,
    stores: &Stores,
) -> (Authenticator, Sealer) {
    let lifetime = Duration::from_secs(u64::from(config.api.session_hours) * 60 * 60);
    let tokens = SessionTokens::new(&secrets.jwt, lifetime);
    let authenticator = Authenticator::new(
        stores.accounts.clone(),
        tokens,
        stores.changes.as_ref(),
        config.gateway.unknown_credentials_per_second,
    );
    (authenticator, Sealer::with_previous(&secrets.master, &secrets.previous))
}

/// The artifacts of this node.
pub(crate) fn cache(
    config: &Config,
    data_dir: &Path,
    artifacts: Arc<dyn ArtifactStore>,
) -> Result<Arc<Cache>, CacheError> {
    let options = CacheOptions { limits: config.limits.clone(), ..CacheOptions::default() };
    Ok(Arc::new(Cache::open(&data_dir.join("cache"), artifacts, options)?))
}

/// A worker that looks does nothing else, and its processor little.
const LONGEST_WATCH_US: u32 = 5_000;

/// The supervisor of workers.
pub(crate) fn sandbox(
    config: &Config,
    worker: &Path,
    data_dir: &Path,
    cache: Arc<Cache>,
) -> Result<Sandbox, ServeError> {
    let usual = SandboxOptions::default();
    let options = SandboxOptions {
        worker_program: worker.to_owned(),
        work_dir: data_dir.join("workers"),
        launch: config.sandbox.launch,
        pool_size: config.sandbox.pool_size,
        max_workers: config.sandbox.max_workers.unwrap_or(usual.max_workers),
        idle_evict_ms: config.sandbox.idle_evict_ms,
        worker_wait_us: config.sandbox.worker_wait_us,
        lone_call_watch_us: config.sandbox.lone_call_watch_us.min(LONGEST_WATCH_US),
        kernel_memory_beyond_mb: config.sandbox.kernel_memory_beyond_mb,
        whole_answer_bytes: config.gateway.unread_answer_bytes,
        egress_allow: config.sandbox.egress_allow.clone(),
        require_full_jail: config.sandbox.require_jail == RequireJail::Full,
        platform: config.limits.clone(),
        ..usual
    };
    Ok(Sandbox::start(options, cache)?)
}

/// The builder of dependency sets.
pub(crate) fn builder(
    config: &Config,
    npm: &Path,
    data_dir: &Path,
    artifacts: Arc<dyn ArtifactStore>,
) -> Result<NpmBuilder, ServeError> {
    let npm = NpmOptions {
        npm: npm.to_owned(),
        cache_dir: config.programs.npm_cache.clone(),
        cache_bytes: config.programs.npm_cache_bytes,
        work_dir: data_dir.join("npm"),
        limits: config.limits.clone(),
        ..NpmOptions::default()
    };
    NpmBuilder::new(npm, artifacts).map_err(ServeError::Npm)
}

/// The data plane.
pub(crate) fn gateway(
    config: &Config,
    stores: Stores,
    (authenticator, sealer): (Authenticator, Sealer),
    invoker: Arc<dyn Invoker>,
    downstream: Option<Arc<dyn Downstream>>,
) -> Result<Gateway, ServeError> {
    let options = GatewayOptions {
        rate_per_second: config.gateway.rate_per_second,
        trust_forwarded: config.gateway.trust_forwarded,
        unread_answer_bytes: config.gateway.unread_answer_bytes,
        log_bytes_per_day: config.limits.log_bytes_per_user_per_day,
        connections: connections(config),
        drain_ms: config.drain_timeout_ms,
        ..GatewayOptions::default()
    };
    let tracer = tracer(config)?;
    Ok(Gateway::new(options, stores, authenticator, sealer, invoker, tracer, downstream))
}

/// Bounds of the connections of a port that anybody may reach.
pub(crate) fn connections(config: &Config) -> ConnectionOptions {
    ConnectionOptions {
        max_connections: config.max_connections,
        head_timeout_ms: config.head_timeout_ms,
        write_timeout_ms: config.write_timeout_ms,
        ..ConnectionOptions::default()
    }
}

/// Sends traces of calls, if there is somebody to send them to.
fn tracer(config: &Config) -> Result<Option<Tracer>, ServeError> {
    let Some(endpoint) = config.gateway.trace_endpoint.clone() else { return Ok(None) };
    // An error says that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options =
        TraceOptions { endpoint, one_in: config.gateway.trace_one_in, ..TraceOptions::default() };
    Ok(Some(Tracer::start(&options)?))
}

/// How much of the time to drain builds have. It takes a moment to say of one that it waits in the queue again,
/// and others would take it only when its lease has run out if the process were gone by then.
fn time_to_build(drain_timeout_ms: u32) -> u32 {
    drain_timeout_ms - drain_timeout_ms / 10
}

/// What the control plane works with.
pub(crate) struct ApiParts<'a> {
    pub(crate) esbuild: &'a Path,
    pub(crate) data_dir: &'a Path,
    pub(crate) stores: Stores,
    pub(crate) identity: (Authenticator, Sealer),
    pub(crate) builder: Arc<dyn DependencyBuilder>,
    pub(crate) loader: Arc<dyn VersionLoader>,
    pub(crate) cache: Arc<Cache>,
    /// Where callers reach the gateway.
    pub(crate) gateway_url: Option<String>,
    /// Where the API does.
    pub(crate) invoke_url: Option<String>,
}

/// The control plane.
pub(crate) fn api(config: &Config, parts: ApiParts<'_>) -> Api {
    let options = ApiOptions {
        work_dir: parts.data_dir.join("builds"),
        esbuild: parts.esbuild.to_owned(),
        gateway_url: parts.gateway_url,
        invoke_url: parts.invoke_url,
        secure_cookie: config.api.secure_cookie,
        trust_forwarded: config.gateway.trust_forwarded,
        limits: config.limits.clone(),
        deploys_in_parallel: config.api.deploys_in_parallel,
        deploys_queued_per_user: config.api.deploys_queued_per_user,
        registrations_per_hour: config.api.registrations_per_hour,
        package_lock_bytes: config.api.package_lock_bytes,
        tree_kept_s: config.api.tree_retention_days.saturating_mul(24 * 60 * 60),
        drain_ms: time_to_build(config.drain_timeout_ms),
        rate_per_second: config.gateway.rate_per_second,
        ..ApiOptions::default()
    };
    let (authenticator, sealer) = parts.identity;
    let ApiParts { stores, builder, loader, cache, .. } = parts;
    Api::new(options, stores, authenticator, sealer, builder, loader, cache)
}

/// The sandboxes, as other processes.
pub(crate) fn sandboxes(config: &Config, token: InternalToken) -> Result<Sandboxes, ServeError> {
    if config.sandbox.urls.is_empty() {
        return Err(ServeError::NoSandboxes);
    }
    // Resolving and installing, each with its own bound; and a load waits for a worker to start.
    let options = RemoteOptions {
        load_timeout_ms: config.limits.load_ms.saturating_add(REMOTE_MARGIN_MS),
        build_timeout_ms: config
            .limits
            .dependency_build_ms
            .saturating_mul(2)
            .saturating_add(REMOTE_MARGIN_MS),
        ..RemoteOptions::default()
    };
    Ok(Sandboxes::start(options, config.sandbox.urls.clone(), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_put_back_before_the_process_ends() {
        for (drain_timeout_ms, build_ms) in [(0, 0), (1_000, 900), (30_000, 27_000)] {
            assert_eq!(time_to_build(drain_timeout_ms), build_ms);
        }
    }
}
