//! `cloudserve`: the program people start.
//!
//! Arguments, environment and file are read here and in [`config`], and nowhere else: the roles
//! get what they need as values.

mod admin;
mod client;
mod config;
mod logging;
mod ops;
mod parts;
mod process;
mod programs;
mod roles;
mod secrets;
mod serve;
mod slice;
mod status;
mod storage;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::roles::Role;
use crate::secrets::FromEnvironment;

/// The C library's allocator keeps what a thread frees for that thread: after sixty registrations at
/// once, whose hashes take 19 MB each, it held 750 MB for good.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Deploy JavaScript and TypeScript functions with their npm packages; call them over HTTP.
#[derive(Parser)]
#[command(name = "cloudserve", version, arg_required_else_help = true, after_help = client::OVERVIEW)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, over SQLite and local files, or MongoDB and S3.
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(Box<Serve>),
    /// Run the control plane alone, over MongoDB, S3 and sandboxes.
    #[command(after_long_help = ROLE_EXAMPLES)]
    Api(Box<Serve>),
    /// Run a gateway alone, over MongoDB and sandboxes.
    #[command(after_long_help = ROLE_EXAMPLES)]
    Gateway(Box<Serve>),
    /// Run a sandbox alone, over S3.
    #[command(after_long_help = ROLE_EXAMPLES)]
    Sandbox(Box<Serve>),
    /// Serve the dashboard's files alone.
    #[command(after_long_help = ROLE_EXAMPLES)]
    Frontend(Box<Serve>),
    /// Operate an installation: quotas, the master key, export and import.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Print the version.
    Version,
    #[command(flatten)]
    Client(client::Command),
}

#[derive(Args)]
struct Serve {
    /// File with settings [default: cloudserve.toml, if there is one].
    #[arg(long, value_name = "FILE", env = config::FILE_VARIABLE)]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: config::Flags,
}

const SERVE_EXAMPLES: &str = "\
Settings: flags win over CLOUDSERVE_* variables, those over the file, those over the defaults.
In the file, `gateway-listen` is `listen` under `[gateway]`; `[limits]` bounds the installation:

  data_dir = \"/var/lib/cloudserve\"
  [gateway]
  listen = \"0.0.0.0:8081\"
  [limits]
  user_concurrency = 200

Secrets: CLOUDSERVE_JWT_SECRET and CLOUDSERVE_MASTER_KEY (64 hexadecimal digits each), or files
under <data-dir>/secrets, which are made at the first start. Whoever has the master key can read
the environments of all functions; without it nobody can. Back it up.

Examples:
  cloudserve serve
  cloudserve serve --data-dir /var/lib/cloudserve --gateway-listen 0.0.0.0:8081
  CLOUDSERVE_LOG=debug CLOUDSERVE_LOG_FORMAT=json cloudserve serve
  cloudserve serve --api-listen 127.0.0.1:0 --gateway-listen 127.0.0.1:0   # free ports

With CLOUDSERVE_MONGODB_URI, CLOUDSERVE_S3_ACCESS_KEY, CLOUDSERVE_S3_SECRET_KEY and a bucket, records
are kept in MongoDB (a replica set) and objects in S3; the data directory then holds only caches and
secrets. The three variables are taken from the environment and nowhere else.

SIGTERM or SIGINT finishes the calls that have begun and ends; a second one ends at once.";

const ROLE_EXAMPLES: &str = "\
An installation of many processes: any number of each role, with MongoDB and S3 behind them.

  role      needs, in its environment
  api       CLOUDSERVE_MONGODB_URI, CLOUDSERVE_S3_*, CLOUDSERVE_JWT_SECRET, CLOUDSERVE_MASTER_KEY,
            CLOUDSERVE_INTERNAL_TOKEN, CLOUDSERVE_SANDBOX_URLS; esbuild
  gateway   CLOUDSERVE_MONGODB_URI, CLOUDSERVE_JWT_SECRET, CLOUDSERVE_MASTER_KEY,
            CLOUDSERVE_INTERNAL_TOKEN, CLOUDSERVE_SANDBOX_URLS
  sandbox   CLOUDSERVE_S3_*, CLOUDSERVE_INTERNAL_TOKEN; cloudserve-worker and npm
  frontend  nothing; whatever balances load sends /api of its host to an api

A secret is the same in all processes. Each api and sandbox has a data directory of its own, for
caches. CLOUDSERVE_INTERNAL_TOKEN is 32 characters or more: `openssl rand -hex 32`.

Examples:
  CLOUDSERVE_SANDBOX_URLS=http://10.0.0.1:8082,http://10.0.0.2:8082 cloudserve gateway
  cloudserve sandbox --sandbox-listen 0.0.0.0:8082 --data-dir /var/lib/cloudserve
  cloudserve api --sandbox-urls http://sandbox.cloudserve.svc:8082 --public-url https://f.example.net

SIGTERM: not ready first, for CLOUDSERVE_DRAIN_NOTICE_MS; then what has begun finishes, for
CLOUDSERVE_DRAIN_TIMEOUT_MS at most. Another signal ends at once.";

fn main() -> ExitCode {
    let secrets = FromEnvironment::take();
    let command = config::explain(Cli::command());
    let parsed = command.clone().try_get_matches();
    let cli = match parsed.and_then(|arguments| Cli::from_arg_matches(&arguments)) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let done = match cli.command {
        Command::Serve(serve) => run_server(None, *serve, &secrets),
        Command::Api(role) => run_server(Some(Role::Api), *role, &secrets),
        Command::Gateway(role) => run_server(Some(Role::Gateway), *role, &secrets),
        Command::Sandbox(role) => run_server(Some(Role::Sandbox), *role, &secrets),
        Command::Frontend(role) => run_server(Some(Role::Frontend), *role, &secrets),
        Command::Admin(command) => admin::run(command, &secrets),
        Command::Version => print_version(),
        Command::Client(of_client) => Ok(client::run(of_client, command)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// The command line is wrong, or all that is wanted is help. Whoever wants JSON gets it now, too; of
/// `admin`, errors are text.
fn refuse(error: &clap::Error) -> ExitCode {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    let is_of_admin = given.first().is_some_and(|command| command == "admin");
    if error.use_stderr() && !is_of_admin && given.iter().any(|argument| argument == "--json") {
        client::tell_wrong_usage(error);
        return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    error.exit()
}

/// All roles, or one.
fn run_server(
    role: Option<Role>,
    serve: Serve,
    secrets: &FromEnvironment,
) -> Result<ExitCode, Box<dyn Error>> {
    let config = config::load(serve.settings, serve.config.as_deref())?;
    logging::start(&config.log.filter, config.log.format)?;
    for name in config::unknown_variables() {
        tracing::warn!(%name, "the variable sets nothing; is its name right?");
    }
    slice::shorten();
    // What runs as the same user cannot read its environment and its memory, which hold secrets.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "other processes of this user can read this one's memory");
    }
    let runtime = runtime(serving_threads(role, config.threads))?;
    Ok(match role {
        None => runtime.block_on(serve::run(config, secrets))?,
        Some(role) => runtime.block_on(roles::run(role, config, secrets))?,
    })
}

/// Of one thread a simpler one: nobody steals its work, and nobody has to be told that there is some.
fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build()
}

/// More threads than there is work for wake each other for every call. Where functions run, half of
/// the cores are for their workers.
fn serving_threads(role: Option<Role>, configured: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match (configured, role) {
        (0, None | Some(Role::Sandbox)) => (cores / 2).max(1),
        (0, Some(Role::Api | Role::Gateway | Role::Frontend)) => cores,
        (threads, _) => threads,
    }
}

fn print_version() -> Result<ExitCode, Box<dyn Error>> {
    use std::io::Write;
    writeln!(std::io::stdout(), "cloudserve {}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}

/// An error and what caused it, once, for the person at the terminal.
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {}", error.to_string().trim_end().replace('\n', "\n  "));
        cause = error.source();
    }
}
