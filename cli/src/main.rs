//! `cloudserve`: the program people start.
//!
//! Arguments, environment and file are read here and in [`config`], and nowhere else: the roles
//! get what they need as values.

mod admin;
mod client;
mod config;
mod logging;
mod programs;
mod secrets;
mod serve;
mod status;
mod storage;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::secrets::FromEnvironment;

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
    /// Operate an installation: quotas, the master key.
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

fn main() -> ExitCode {
    let secrets = FromEnvironment::take();
    let command = config::explain(Cli::command());
    let arguments = command.clone().get_matches();
    let cli = Cli::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit());
    let done = match cli.command {
        Command::Serve(serve) => run_serve(*serve, &secrets),
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

fn run_serve(serve: Serve, secrets: &FromEnvironment) -> Result<ExitCode, Box<dyn Error>> {
    let config = config::load(serve.settings, serve.config.as_deref())?;
    logging::start(&config.log.filter, config.log.format)?;
    for name in config::unknown_variables() {
        tracing::warn!(%name, "the variable sets nothing; is its name right?");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(serve::run(config, secrets))?)
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
