//! `cloudserve-bench`: the latency harness. It starts the real server and the peers on this
//! machine, calls them in turn over the same client, and writes down what came of it.
//! docs/BENCHMARKS.md says how to read that.

// Figures are for people: what a cast loses is far below their noise.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod client;
mod error;
mod load;
mod machine;
mod progress;
mod report;
mod results;
mod run;
mod suite;
mod target;
mod workload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{BenchError, Doing};

/// Measures CloudServe, and what it is measured against.
#[derive(Debug, Parser)]
#[command(name = "cloudserve-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure; results go to files, JSON to standard output with `--json`.
    Run(Box<run::RunArgs>),
    /// Compare two results; fails if the second is worse by more than both runs' noise.
    Compare {
        /// `results.json` of the earlier run.
        before: PathBuf,
        /// `results.json` of the later run.
        after: PathBuf,
    },
    /// Write the reports of results again, and print the table.
    Report {
        /// `results.json` of a run.
        results: PathBuf,
        /// Where the reports go.
        #[arg(long, default_value = "target/bench")]
        out: PathBuf,
    },
    /// Answer every request with the same bytes: the floor under all figures.
    #[command(hide = true)]
    NullServer {
        /// Where to listen.
        address: std::net::SocketAddr,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cloudserve-bench: {}", error.whole());
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, BenchError> {
    // One thread: client and bookkeeping together take less than one core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing("cannot start the runtime")?;
    match command {
        Command::Run(args) => runtime.block_on(run::run(*args)),
        Command::Compare { before, after } => report::compare(&before, &after),
        Command::Report { results, out } => {
            let results = results::Results::read(&results)?;
            std::fs::create_dir_all(&out).doing(format!("cannot make {}", out.display()))?;
            report::write(&results, &out)?;
            let _ = writeln!(io::stdout(), "{}", report::table(&results));
            Ok(ExitCode::SUCCESS)
        }
        Command::NullServer { address } => {
            runtime.block_on(target::null::serve(address)).map(|()| ExitCode::SUCCESS)
        }
    }
}
