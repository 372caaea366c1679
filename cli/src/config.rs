//! Settings of the server, whatever its role: defaults < `cloudserve.toml` < environment < flags.
//!
//! One struct per concern; a field is named once and has its key in the file, its variable, its
//! flag and its help from that one place. Unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cloudserve_protocol::egress::EgressRule;
use cloudserve_protocol::limits::PlatformLimits;
use cloudserve_remote::SandboxUrl;
use cloudserve_sandbox::LaunchMode;
use cloudserve_store::ChecksumMode;
use confique::meta::{Expr, FieldKind, LeafKind, Meta};
use confique::{Config as _, File, FileFormat, Layer as _};
use serde::de::{DeserializeOwned, IgnoredAny, IntoDeserializer};

use crate::client::environment;
use crate::logging::LogFormat;
use crate::secrets;

/// The file that is read when it is there and no other is named.
pub(crate) const DEFAULT_FILE: &str = "cloudserve.toml";

/// The variable that names another file.
pub(crate) const FILE_VARIABLE: &str = "CLOUDSERVE_CONFIG";

const PREFIX: &str = "CLOUDSERVE_";

/// The commands that have these settings.
const ROLES: [&str; 5] = ["serve", "api", "gateway", "sandbox", "frontend"];

/// All settings.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Config {
    /// Directory for databases, objects, secrets and caches.
    #[config(env = "CLOUDSERVE_DATA_DIR", default = "./data")]
    #[config(layer_attr(arg(long, value_name = "DIR")))]
    pub(crate) data_dir: PathBuf,

    /// On SIGTERM, time for calls that have begun to finish, in milliseconds.
    #[config(env = "CLOUDSERVE_DRAIN_TIMEOUT_MS", default = 30_000)]
    #[config(layer_attr(arg(long, value_name = "MS")))]
    pub(crate) drain_timeout_ms: u32,

    /// Connections of the API's, the gateway's and a `frontend`'s port, each; more wait for a place.
    #[config(env = "CLOUDSERVE_MAX_CONNECTIONS", default = 10_000)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) max_connections: usize,

    /// Time for a request's headers to come, in milliseconds; for so long a connection may idle, too.
    #[config(env = "CLOUDSERVE_HEAD_TIMEOUT_MS", default = 75_000)]
    #[config(layer_attr(arg(long, value_name = "MS")))]
    pub(crate) head_timeout_ms: u32,

    /// A connection on which nothing of an answer is taken for this long is closed, in milliseconds.
    #[config(env = "CLOUDSERVE_WRITE_TIMEOUT_MS", default = 30_000)]
    #[config(layer_attr(arg(long, value_name = "MS")))]
    pub(crate) write_timeout_ms: u32,

    /// Threads that serve requests; 0 is as many as cores, or half where functions run.
    #[config(env = "CLOUDSERVE_THREADS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) threads: usize,

    /// On SIGTERM, time for which `api`, `gateway` and `frontend` go on as before and say that they are
    /// not ready, in milliseconds: so that whoever balances load looks for others first.
    #[config(env = "CLOUDSERVE_DRAIN_NOTICE_MS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "MS")))]
    pub(crate) drain_notice_ms: u32,

    /// Days for which logs are kept. Usage does not go with them.
    #[config(env = "CLOUDSERVE_LOG_RETENTION_DAYS", default = 30)]
    #[config(layer_attr(arg(long, value_name = "DAYS")))]
    pub(crate) log_retention_days: u32,

    /// Days for which single calls are kept; their sums by day stay. 0: for good.
    #[config(env = "CLOUDSERVE_USAGE_RETENTION_DAYS", default = 0)]
    #[config(layer_attr(arg(long, value_name = "DAYS")))]
    pub(crate) usage_retention_days: u32,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) api: Api,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) gateway: Gateway,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) sandbox: Sandbox,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) frontend: Frontend,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) ops: Ops,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) mongodb: Mongodb,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) s3: S3,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) programs: Programs,

    #[config(nested)]
    #[config(layer_attr(command(flatten)))]
    pub(crate) log: Log,

    /// Bounds of the installation, by name; docs/API.md lists them. Only in the file.
    #[config(default = {})]
    #[config(layer_attr(arg(skip)))]
    pub(crate) limits: PlatformLimits,

    /// What a project says about its function, in the same file: for the client commands. Passed
    /// over, so that a server can be started in a project.
    #[config(layer_attr(arg(skip)))]
    #[allow(dead_code)] // That it may be there is all.
    pub(crate) function: Option<IgnoredAny>,
}

/// The control plane.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Api {
    /// Where the API listens; port 0 takes a free one.
    #[config(env = "CLOUDSERVE_API_LISTEN", default = "127.0.0.1:8080")]
    #[config(layer_attr(arg(id = "api_listen", long = "api-listen", value_name = "ADDR:PORT")))]
    pub(crate) listen: SocketAddr,

    /// Deploys that are built at the same time.
    #[config(env = "CLOUDSERVE_DEPLOYS_IN_PARALLEL", default = 2)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) deploys_in_parallel: usize,

    /// Deploys of one account that may wait or be in work at the same time.
    #[config(env = "CLOUDSERVE_DEPLOYS_QUEUED_PER_USER", default = 20)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) deploys_queued_per_user: u32,

    /// Accounts that may begin per hour at one address, of IPv6 a /64 network; 0 sets no bound.
    #[config(env = "CLOUDSERVE_REGISTRATIONS_PER_HOUR", default = 500)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) registrations_per_hour: u32,

    /// Lock file of a deploy, in bytes.
    #[config(env = "CLOUDSERVE_PACKAGE_LOCK_BYTES", default = 4_194_304)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub(crate) package_lock_bytes: u64,

    /// Days for which dependency trees are kept that no version uses any more. 0: for good.
    #[config(env = "CLOUDSERVE_TREE_RETENTION_DAYS", default = 7)]
    #[config(layer_attr(arg(long, value_name = "DAYS")))]
    pub(crate) tree_retention_days: u32,

    /// How long a session token is valid, in hours.
    #[config(env = "CLOUDSERVE_SESSION_HOURS", default = 168)]
    #[config(layer_attr(arg(long, value_name = "HOURS")))]
    pub(crate) session_hours: u32,

    /// Send the session cookie over TLS only: right behind a proxy that ends TLS.
    #[config(env = "CLOUDSERVE_SECURE_COOKIE", default = false)]
    #[config(layer_attr(arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")))]
    pub(crate) secure_cookie: bool,

    /// Where `api` reaches a gateway, for calls from the dashboard: `http`, since the way is within
    /// the installation [default: where callers do, if that is `http`].
    #[config(env = "CLOUDSERVE_INVOKE_URL")]
    #[config(layer_attr(arg(long, value_name = "URL")))]
    pub(crate) invoke_url: Option<String>,
}

/// The data plane.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Gateway {
    /// Where the gateway listens; port 0 takes a free one.
    #[config(env = "CLOUDSERVE_GATEWAY_LISTEN", default = "127.0.0.1:8081")]
    #[config(layer_attr(arg(
        id = "gateway_listen",
        long = "gateway-listen",
        value_name = "ADDR:PORT"
    )))]
    pub(crate) listen: SocketAddr,

    /// Calls per second of one credential, or of an address that shows none; 0 sets no bound.
    #[config(env = "CLOUDSERVE_RATE_PER_SECOND", default = 0)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) rate_per_second: u32,

    /// Credentials that nobody has, looked up per second and address, at the API as well; 0 sets no
    /// bound. What is valid does not count.
    #[config(env = "CLOUDSERVE_UNKNOWN_CREDENTIALS_PER_SECOND", default = 10)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) unknown_credentials_per_second: u32,

    /// Of an account's functions, bytes of answers that are whole in memory while their callers read
    /// them; beyond it its calls get 429, and large answers wait in their workers. 0 sets no bound.
    #[config(env = "CLOUDSERVE_UNREAD_ANSWER_BYTES", default = 268_435_456)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub(crate) unread_answer_bytes: u64,

    /// Where callers reach the gateway, as the API tells them [default of `serve`: where it listens].
    #[config(env = "CLOUDSERVE_PUBLIC_URL")]
    #[config(layer_attr(arg(long, value_name = "URL")))]
    pub(crate) public_url: Option<String>,

    /// Believe the `x-forwarded-*` headers of callers, at the API as well: only behind a proxy that
    /// sets them. A caller's address is then the last one in `x-forwarded-for`.
    #[config(env = "CLOUDSERVE_TRUST_FORWARDED", default = false)]
    #[config(layer_attr(arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")))]
    pub(crate) trust_forwarded: bool,

    /// Where traces of calls are sent, by OTLP over HTTP: `http://HOST:4318` [default: nowhere].
    #[config(env = "CLOUDSERVE_TRACE_ENDPOINT")]
    #[config(layer_attr(arg(long, value_name = "URL")))]
    pub(crate) trace_endpoint: Option<String>,

    /// Of the calls whose callers have not decided (`traceparent`), one in so many is traced; 0
    /// traces none.
    #[config(env = "CLOUDSERVE_TRACE_ONE_IN", default = 1)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) trace_one_in: u32,
}

/// The pool of worker processes.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Sandbox {
    /// Where a `sandbox` listens, for `api` and `gateway`; port 0 takes a free one.
    #[config(env = "CLOUDSERVE_SANDBOX_LISTEN", default = "127.0.0.1:8082")]
    #[config(layer_attr(arg(
        id = "sandbox_listen",
        long = "sandbox-listen",
        value_name = "ADDR:PORT"
    )))]
    pub(crate) listen: SocketAddr,

    /// Where `api` and `gateway` find sandboxes: `http://HOST:PORT`, separated by commas. A name
    /// with several addresses is as many sandboxes.
    #[config(env = "CLOUDSERVE_SANDBOX_URLS", default = [], parse_env = comma_separated)]
    #[config(layer_attr(arg(
        id = "sandbox_urls",
        long = "sandbox-urls",
        value_name = "URL",
        value_delimiter = ','
    )))]
    pub(crate) urls: Vec<SandboxUrl>,

    /// Workers kept ready for functions that have none yet.
    #[config(env = "CLOUDSERVE_POOL_SIZE", default = 4)]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) pool_size: usize,

    /// How workers come to be: `zygote`, forked from a booted process, or `process`, a program of
    /// its own for each (slower to start, no memory layout in common).
    #[config(env = "CLOUDSERVE_LAUNCH", default = "zygote")]
    #[config(layer_attr(arg(long, value_name = "MODE", value_parser = word::<LaunchMode>)))]
    pub(crate) launch: LaunchMode,

    /// Worker processes alive at the same time [default: as many as fit into memory].
    #[config(env = "CLOUDSERVE_MAX_WORKERS")]
    #[config(layer_attr(arg(long, value_name = "N")))]
    pub(crate) max_workers: Option<usize>,

    /// A worker that had no call for this long is ended, in milliseconds.
    #[config(env = "CLOUDSERVE_IDLE_EVICT_MS", default = 300_000)]
    #[config(layer_attr(arg(long, value_name = "MS")))]
    pub(crate) idle_evict_ms: u32,

    /// How long a call may be expected to wait in a busy worker, in microseconds; 0: not at all.
    #[config(env = "CLOUDSERVE_WORKER_WAIT_US", default = 1_000)]
    #[config(layer_attr(arg(long, value_name = "US")))]
    pub(crate) worker_wait_us: u32,

    /// While calls come one at a time and take half of this at most: how long the answer, and then the
    /// next call, is looked for instead of slept for, in microseconds; at most 5 000, 0: not at all.
    #[config(env = "CLOUDSERVE_LONE_CALL_WATCH_US", default = 300)]
    #[config(layer_attr(arg(long, value_name = "US")))]
    pub(crate) lone_call_watch_us: u32,

    /// What a worker may hold beyond `memoryMb` and its `/tmp` before the kernel ends it, where
    /// control groups are delegated.
    #[config(env = "CLOUDSERVE_KERNEL_MEMORY_BEYOND_MB", default = 192)]
    #[config(layer_attr(arg(long, value_name = "MB")))]
    pub(crate) kernel_memory_beyond_mb: u32,

    /// Addresses outside the public internet that functions may connect to: `CIDR` or `CIDR:port`,
    /// separated by commas.
    #[config(env = "CLOUDSERVE_EGRESS_ALLOW", default = [], parse_env = comma_separated)]
    #[config(layer_attr(arg(long, value_name = "CIDR[:PORT]", value_delimiter = ',')))]
    pub(crate) egress_allow: Vec<EgressRule>,

    /// `full` refuses to start where the platform cannot jail workers fully.
    #[config(env = "CLOUDSERVE_REQUIRE_JAIL", default = "none")]
    #[config(layer_attr(arg(long, value_enum)))]
    pub(crate) require_jail: RequireJail,
}

/// The dashboard, served by itself.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Frontend {
    /// Where `frontend` listens; port 0 takes a free one.
    #[config(env = "CLOUDSERVE_FRONTEND_LISTEN", default = "127.0.0.1:8083")]
    #[config(layer_attr(arg(
        id = "frontend_listen",
        long = "frontend-listen",
        value_name = "ADDR:PORT"
    )))]
    pub(crate) listen: SocketAddr,
}

/// What is for whoever watches the process.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Ops {
    /// Where `/healthz`, `/readyz` and `/metrics` are answered alone, besides where they always are:
    /// callers that have all places there keep no probe out here [default: nowhere].
    #[config(env = "CLOUDSERVE_OPS_LISTEN")]
    #[config(layer_attr(arg(id = "ops_listen", long = "ops-listen", value_name = "ADDR:PORT")))]
    pub(crate) listen: Option<SocketAddr>,
}

/// What a platform must give for the jail of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RequireJail {
    /// As much as it has.
    None,
    /// All of it.
    Full,
}

/// One of a few words, read in a flag as in the file.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, serde::de::value::Error> {
    T::deserialize(text.into_deserializer())
}

fn comma_separated<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::parse).collect()
}

/// The database of an installation of many processes. Where it is comes from
/// `CLOUDSERVE_MONGODB_URI` alone, because it may hold a password.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Mongodb {
    /// Connections to MongoDB at most.
    #[config(env = "CLOUDSERVE_MONGODB_MAX_CONNECTIONS", default = 32)]
    #[config(layer_attr(arg(
        id = "mongodb_max_connections",
        long = "mongodb-max-connections",
        value_name = "N"
    )))]
    pub(crate) max_connections: u32,

    /// How long an operation of MongoDB may take, retries included, in milliseconds.
    #[config(env = "CLOUDSERVE_MONGODB_OPERATION_TIMEOUT_MS", default = 10_000)]
    #[config(layer_attr(arg(
        id = "mongodb_operation_timeout_ms",
        long = "mongodb-operation-timeout-ms",
        value_name = "MS"
    )))]
    pub(crate) operation_timeout_ms: u32,
}

/// The object store of an installation of many processes.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct S3 {
    /// Where S3 is [default: AWS].
    #[config(env = "CLOUDSERVE_S3_ENDPOINT")]
    #[config(layer_attr(arg(id = "s3_endpoint", long = "s3-endpoint", value_name = "URL")))]
    pub(crate) endpoint: Option<String>,

    /// Its region; stores other than AWS take any.
    #[config(env = "CLOUDSERVE_S3_REGION", default = "us-east-1")]
    #[config(layer_attr(arg(id = "s3_region", long = "s3-region", value_name = "REGION")))]
    pub(crate) region: String,

    /// The bucket for sources, bundles and dependency trees.
    #[config(env = "CLOUDSERVE_S3_BUCKET")]
    #[config(layer_attr(arg(id = "s3_bucket", long = "s3-bucket", value_name = "NAME")))]
    pub(crate) bucket: Option<String>,

    /// `supported`: checksums on every object; `required`: for stores that refuse them.
    #[config(env = "CLOUDSERVE_S3_CHECKSUMS", default = "supported")]
    #[config(layer_attr(arg(
        id = "s3_checksums",
        long = "s3-checksums",
        value_name = "MODE",
        value_parser = word::<ChecksumMode>
    )))]
    pub(crate) checksums: ChecksumMode,
}

/// Programs that are run.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Programs {
    /// The worker [default: `cloudserve-worker` beside this program].
    #[config(env = "CLOUDSERVE_WORKER")]
    #[config(layer_attr(arg(long, value_name = "PATH")))]
    pub(crate) worker: Option<PathBuf>,

    /// esbuild [default: beside this program, in the checkout's tools, else in PATH].
    #[config(env = "CLOUDSERVE_ESBUILD")]
    #[config(layer_attr(arg(long, value_name = "PATH")))]
    pub(crate) esbuild: Option<PathBuf>,

    /// npm [default: in the checkout's tools, else in PATH].
    #[config(env = "CLOUDSERVE_NPM")]
    #[config(layer_attr(arg(long, value_name = "PATH")))]
    pub(crate) npm: Option<PathBuf>,

    /// Where npm keeps what it downloaded [default: in the data directory].
    #[config(env = "CLOUDSERVE_NPM_CACHE")]
    #[config(layer_attr(arg(long, value_name = "DIR")))]
    pub(crate) npm_cache: Option<PathBuf>,

    /// Beyond so many bytes it is emptied before a build, while no other is under way; 0: no bound.
    #[config(env = "CLOUDSERVE_NPM_CACHE_BYTES", default = 4_294_967_296_u64)]
    #[config(layer_attr(arg(long, value_name = "BYTES")))]
    pub(crate) npm_cache_bytes: u64,
}

/// The server's own log.
#[derive(Debug, confique::Config)]
#[config(layer_attr(derive(clap::Args)), layer_attr(serde(deny_unknown_fields)))]
pub(crate) struct Log {
    /// What is logged: `info`, `debug`, `warn,cloudserve_gateway=debug`, ...
    #[config(env = "CLOUDSERVE_LOG", default = "info")]
    #[config(layer_attr(arg(id = "log", long = "log", value_name = "FILTER")))]
    pub(crate) filter: String,

    /// `text` or `json`, on standard error.
    #[config(env = "CLOUDSERVE_LOG_FORMAT", default = "text")]
    #[config(layer_attr(arg(id = "log_format", long = "log-format", value_enum)))]
    pub(crate) format: LogFormat,
}

/// The flags of `serve` and the roles that are settings.
pub(crate) type Flags = <Config as confique::Config>::Layer;

/// Reads all layers. A file that was named must exist; [`DEFAULT_FILE`] need not.
pub(crate) fn load(flags: Flags, file: Option<&Path>) -> Result<Config, confique::Error> {
    let source = File::with_format(file.unwrap_or(Path::new(DEFAULT_FILE)), FileFormat::Toml);
    let source = if file.is_some() { source.required() } else { source };
    let merged = flags
        .with_fallback(Flags::from_env()?)
        .with_fallback(source.load()?)
        .with_fallback(Flags::default_values());
    Config::from_layer(merged)
}

/// Reads all layers but flags, for commands beside a server.
pub(crate) fn load_without_flags(file: Option<&Path>) -> Result<Config, confique::Error> {
    load(Flags::empty(), file)
}

/// Adds variable and default to the help of each setting: both are known from [`Config::META`].
pub(crate) fn explain(mut command: clap::Command) -> clap::Command {
    let mut settings = Vec::new();
    collect(&Config::META, &mut settings);
    for role in ROLES {
        for (variable, default) in &settings {
            command = command.mut_subcommand(role, |serve| {
                serve.mut_arg(argument_of(variable), |argument| {
                    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                    if let Some(default) = default {
                        help = format!("{help} [default: {}]", shown(default));
                    }
                    argument.help(format!("{help} [env: {variable}]"))
                })
            });
        }
    }
    command
}

fn shown(default: &Expr) -> String {
    let text = serde_json::to_string(default).unwrap_or_default();
    text.trim_matches('"').to_owned()
}

/// A setting's argument is named as its variable.
fn argument_of(variable: &str) -> String {
    variable.trim_start_matches(PREFIX).to_lowercase()
}

/// Variables that look like ours but set nothing: most likely misspelt.
pub(crate) fn unknown_variables() -> Vec<String> {
    let mut settings = Vec::new();
    collect(&Config::META, &mut settings);
    let is_known = |name: &str| {
        name == FILE_VARIABLE
            || secrets::VARIABLES.contains(&name)
            || environment::VARIABLES.contains(&name)
            || settings.iter().any(|(variable, _)| *variable == name)
    };
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !is_known(name))
        .collect()
}

/// Variable and default of every setting that has a variable.
fn collect(meta: &'static Meta, into: &mut Vec<(&'static str, Option<Expr>)>) {
    for field in meta.fields {
        match field.kind {
            FieldKind::Leaf { env: Some(variable), kind } => into.push((
                variable,
                match kind {
                    LeafKind::Required { default } => default,
                    LeafKind::Optional => None,
                },
            )),
            FieldKind::Leaf { env: None, .. } => {}
            FieldKind::Nested { meta } => collect(meta, into),
        }
    }
}

#[cfg(test)]
mod tests;
