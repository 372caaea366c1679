//! The commands that talk to a server over its API: what people and scripts do with functions.
//!
//! Invariants: nothing here reads the server's data or settings; standard output is the result and
//! nothing else; secrets are never arguments.

mod account;
mod api;
mod credentials;
mod deploy;
mod dev;
mod env;
mod env_file;
pub(crate) mod environment;
mod error;
mod functions;
mod init;
mod invoke;
mod keys;
mod logs;
mod output;
mod project;
mod prompt;
mod session;
mod usage;

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::{Shell, generate};

use self::error::ClientError;
use self::output::Output;

/// What every help ends with.
pub(crate) const OVERVIEW: &str = "\
Begin on this machine:
  cloudserve serve                  # a server; leave it running
  cloudserve register               # an account, once
  cloudserve init hello && cd hello
  cloudserve deploy
  cloudserve invoke . '{\"n\": 1}'

From a script, a key is all it takes:
  export CLOUDSERVE_URL=https://cloudserve.example.org CLOUDSERVE_API_KEY=...
  cloudserve deploy --json

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in, 4 no server.
NO_COLOR turns colours off. docs/CLI.md tells the rest.";

/// Commands for people and scripts.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an account and log in.
    #[command(after_help = "\
The password is asked for, or read from CLOUDSERVE_PASSWORD or standard input.

Examples:
  cloudserve register
  pass ada | cloudserve register --user-name ada --email ada@example.org --full-name 'Ada L.'")]
    Register(account::Register),
    /// Log in and remember it.
    #[command(after_help = "\
The password (with --key, the API key) is asked for, or read from CLOUDSERVE_PASSWORD
(CLOUDSERVE_API_KEY) or standard input. The login is kept in ~/.config/cloudserve, readable by you
alone.

Examples:
  cloudserve login
  cloudserve login --url https://cloudserve.example.org --user ada
  pass cloudserve-key | cloudserve login --key")]
    Login(account::Login),
    /// Forget the login and end the session.
    Logout(account::Logout),
    /// Show who you are, and where.
    #[command(name = "whoami")]
    WhoAmI(account::WhoAmI),
    /// Write a project to begin with.
    #[command(after_help = "\
Examples:
  cloudserve init hello
  cloudserve init shop --template express")]
    Init(init::Init),
    /// Run a function on this machine, again after every change.
    #[command(after_help = "\
It is the real server, with its data in the project's .cloudserve folder: the same runtime and the
same limits. What the function writes appears here. .env is its environment.

Examples:
  cloudserve dev
  cloudserve dev hello.ts --port 3000")]
    Dev(dev::Dev),
    /// Deploy a file or a folder.
    #[command(after_help = "\
A folder is sent without what .gitignore and .cloudserveignore name, node_modules, .env files and
.npmrc. Its cloudserve.toml says the rest:

  [function]
  name = \"hello\"
  visibility = \"public\"
  [function.limits]
  timeoutMs = 10000

A file is sent alone, with the package.json beside it. A failed deploy changes nothing that is
served, and ends with exit code 1; so does one that is built and not served, because a newer
version or a rollback came first.

Examples:
  cloudserve deploy
  cloudserve deploy hello.ts --dependency axios@^1
  cloudserve deploy --json | jq -r .url")]
    Deploy(deploy::Deploy),
    /// List your functions.
    #[command(visible_alias = "ls")]
    List(functions::List),
    /// Show everything about a function.
    Info(functions::OfFunction),
    /// Call a function.
    #[command(after_help = "\
Standard output is the answer; status, timing and logs go to standard error. With --json all of it
is one document. The exit code is 0 if the function answered with a status below 400.

Examples:
  cloudserve invoke hello
  cloudserve invoke hello '{\"n\": 1}' -H 'x-colour: blue'
  cloudserve invoke hello @body.json --path /items/7?all=true
  date | cloudserve invoke hello - --json | jq .result
  cloudserve invoke . --raw > picture.png")]
    Invoke(invoke::Invoke),
    /// Show what a function wrote.
    #[command(after_help = "\
Examples:
  cloudserve logs hello
  cloudserve logs hello --follow --level warn,error
  cloudserve logs hello --json | jq -r '.logs[].logs[].message'")]
    Logs(logs::Logs),
    /// Show what calls took and what the account may use.
    Usage(usage::Usage),
    /// Set, remove and list a function's environment variables.
    #[command(subcommand)]
    Env(env::Env),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// List the versions of a function.
    Versions(functions::OfFunction),
    /// Serve an earlier version; nothing is built.
    #[command(after_help = "\
Examples:
  cloudserve rollback hello
  cloudserve rollback hello --to 3")]
    Rollback(functions::Rollback),
    /// Delete a function with all its versions.
    Delete(functions::Delete),
    /// Open a function's address in the browser.
    Open(functions::Open),
    /// Write completions for a shell.
    #[command(after_help = "\
Examples:
  cloudserve completions bash > ~/.local/share/bash-completion/completions/cloudserve
  cloudserve completions zsh > ~/.zfunc/_cloudserve
  cloudserve completions fish > ~/.config/fish/completions/cloudserve.fish")]
    Completions(Completions),
}

#[derive(Args)]
pub(crate) struct Completions {
    shell: Shell,
}

/// Runs a command; errors are told here.
pub(crate) fn run(command: Command, whole: clap::Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the program cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let output = command.output();
    let done = runtime.block_on(dispatch(command, whole));
    // What still runs waits for nobody.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        // `cloudserve list | head` is no failure.
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            output.error(&error);
            error.exit_code()
        }
    }
}

/// What is wrong with the command line, for scripts.
pub(crate) fn tell_wrong_usage(error: &clap::Error) {
    let text = error.to_string();
    let (message, rest) = text.split_once("\n\n").unwrap_or((text.as_str(), ""));
    let message = message.strip_prefix("error: ").unwrap_or(message);
    Output { is_json: true }.error(&ClientError::usage(message.trim(), rest.trim()));
}

async fn dispatch(command: Command, whole: clap::Command) -> Result<ExitCode, ClientError> {
    match command {
        Command::Register(args) => account::register(args).await,
        Command::Login(args) => account::login(args).await,
        Command::Logout(args) => account::logout(args).await,
        Command::WhoAmI(args) => account::whoami(args).await,
        Command::Init(args) => init::run(&args),
        Command::Dev(args) => dev::run(args).await,
        Command::Deploy(args) => deploy::run(args).await,
        Command::List(args) => functions::list(args).await,
        Command::Info(args) => functions::info(args).await,
        Command::Invoke(args) => return invoke::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Env(args) => env::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Versions(args) => functions::versions(args).await,
        Command::Rollback(args) => functions::rollback(args).await,
        Command::Delete(args) => functions::delete(args).await,
        Command::Open(args) => functions::open(args).await,
        Command::Completions(args) => completions(args.shell, whole),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell, mut whole: clap::Command) -> Result<(), ClientError> {
    let mut script = Vec::new();
    generate(shell, &mut whole, "cloudserve", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(ClientError::Output)
}

impl Command {
    fn output(&self) -> Output {
        let common = match self {
            Self::Register(args) => &args.common,
            Self::Login(args) => &args.common,
            Self::Logout(args) => &args.common,
            Self::WhoAmI(args) => &args.common,
            Self::Init(args) => return args.output(),
            Self::Dev(args) => return args.output(),
            Self::Deploy(args) => &args.common,
            Self::List(args) => &args.common,
            Self::Info(args) | Self::Versions(args) => &args.common,
            Self::Invoke(args) => &args.common,
            Self::Logs(args) => &args.common,
            Self::Usage(args) => &args.common,
            Self::Env(args) => args.common(),
            Self::Keys(args) => args.common(),
            Self::Rollback(args) => &args.common,
            Self::Delete(args) => &args.common,
            Self::Open(args) => &args.common,
            Self::Completions(_) => return Output { is_json: false },
        };
        common.output()
    }
}
