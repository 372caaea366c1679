//! `cloudserve-bench run`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::RealClock;
use crate::error::{BenchError, Doing};
use crate::machine::{Machine, ProcessorTime, commit};
use crate::progress::Progress;
use crate::report;
use crate::results::{Results, Run, SCHEMA};
use crate::suite::{Bench, Plan, Suite};
use crate::target::{PeerKind, Peers};

/// What is measured, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Only hello, against node, in about a minute: to see whether a change did anything.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Everything, as long as it takes.
    #[arg(long)]
    full: bool,
    /// Only these suites.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Suite>,
    /// Only these peers.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<PeerKind>,
    /// Numbers of connections of the closed loop.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: Vec<u16>,
    /// Rounds in which all take their turn.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Milliseconds measured per turn.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    window_ms: Option<u64>,
    /// Functions deployed where many are; 10 000 with `--full`.
    #[arg(long)]
    routed_functions: Option<usize>,
    /// How long a soak lasts.
    #[arg(long)]
    soak_seconds: Option<u64>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Settings of the server, `CLOUDSERVE_NAME=value`.
    #[arg(long = "set", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// The server's program [default: `cloudserve` beside this one].
    #[arg(long)]
    server: Option<PathBuf>,
    /// The peers' sources.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))]
    peers_dir: PathBuf,
    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if name.starts_with("CLOUDSERVE_") => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("a setting is CLOUDSERVE_NAME=value".to_owned()),
    }
}

impl RunArgs {
    fn length(&self) -> &'static str {
        match (self.quick, self.full) {
            (true, _) => "quick",
            (_, true) => "full",
            _ => "usual",
        }
    }

    fn plan(&self) -> Plan {
        let mut plan = match self.length() {
            "quick" => Plan {
                seed: self.seed,
                rounds: 3,
                warm_up: Duration::from_millis(500),
                window: Duration::from_millis(1_000),
                connections: vec![1, 8, 32],
                peers: vec![PeerKind::Node],
                cold_functions: 20,
                cold_rounds: 2,
                cold_rounds_when_old: 0,
                fleet: 20,
                step: Duration::from_secs(1),
                routed_functions: 50,
                trace_functions: 10,
                trace_rate: 20.0,
                trace: Duration::from_secs(10),
                soak: Duration::from_secs(20),
            },
            length => {
                let is_full = length == "full";
                Plan {
                    seed: self.seed,
                    rounds: if is_full { 9 } else { 3 },
                    warm_up: Duration::from_millis(500),
                    window: Duration::from_millis(1_500),
                    connections: vec![1, 8, 32],
                    peers: PeerKind::ALL.to_vec(),
                    cold_functions: 100,
                    cold_rounds: if is_full { 5 } else { 2 },
                    cold_rounds_when_old: 1,
                    fleet: if is_full { 1_000 } else { 100 },
                    step: Duration::from_secs(if is_full { 5 } else { 2 }),
                    routed_functions: if is_full { 10_000 } else { 1_000 },
                    trace_functions: 30,
                    trace_rate: 40.0,
                    trace: Duration::from_secs(if is_full { 120 } else { 20 }),
                    soak: Duration::from_secs(600),
                }
            }
        };
        if !self.peers.is_empty() {
            plan.peers.clone_from(&self.peers);
        }
        if !self.connections.is_empty() {
            plan.connections = self.connections.iter().map(|n| usize::from(*n)).collect();
        }
        plan.routed_functions = self.routed_functions.unwrap_or(plan.routed_functions).max(11);
        plan.soak = self.soak_seconds.map_or(plan.soak, Duration::from_secs);
        plan.rounds = self.rounds.map_or(plan.rounds, usize::from);
        plan.window = self.window_ms.map_or(plan.window, Duration::from_millis);
        plan
    }
}

/// Measures what was asked for.
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, BenchError> {
    let begun = Instant::now();
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut machine = Machine::look();
    let processors = ProcessorTime::now();
    let own = std::env::current_exe().doing("the harness does not know its path")?;
    let program = args.server.clone().unwrap_or_else(|| own.with_file_name("cloudserve"));
    std::fs::create_dir_all(&args.out).doing(format!("cannot make {}", args.out.display()))?;
    // Not below `/tmp`, where a server's data does not lie either: each worker has its own there,
    // into which what it needs of the host's would have to be mounted.
    let scratch = args
        .out
        .canonicalize()
        .and_then(|out| tempfile::Builder::new().prefix(".scratch-").tempdir_in(out))
        .doing("cannot make a directory")?;
    let progress = Progress::new();
    let peers = Peers::install(&args.peers_dir, scratch.path())?;
    let plan = args.plan();
    let versions: BTreeMap<String, String> = plan
        .peers
        .iter()
        .filter_map(|kind| Some((kind.name().to_owned(), peers.version(*kind)?)))
        .collect();
    let mut bench = Bench {
        plan,
        clock: RealClock::new(),
        peers,
        program,
        scratch: scratch.path().to_owned(),
        extra: args.settings.clone(),
        cells: Vec::new(),
        notes: Vec::new(),
        progress,
        fleet: None,
    };
    let suites = match (args.only.as_slice(), args.length()) {
        ([], "quick") => Suite::QUICK.to_vec(),
        ([], "full") => Suite::USUAL.into_iter().chain([Suite::Soak]).collect(),
        ([], _) => Suite::USUAL.to_vec(),
        (only, _) => only.to_vec(),
    };
    for suite in suites {
        bench.run(suite).await;
    }
    machine.stolen = ProcessorTime::now().stolen_since(processors);
    let (commit, dirty) = commit(&args.peers_dir);
    let mut configuration: BTreeMap<_, _> = args.settings.iter().cloned().collect();
    configuration.insert("limits.user_concurrency".to_owned(), "1000".to_owned());
    let results = Results {
        schema: SCHEMA,
        machine,
        run: Run {
            commit,
            dirty,
            started_at,
            took_seconds: begun.elapsed().as_secs_f64(),
            seed: args.seed,
            length: args.length().to_owned(),
            configuration,
            versions,
        },
        cells: bench.cells,
        notes: bench.notes,
    };
    let path = args.out.join("results.json");
    results.write(&path)?;
    report::write(&results, &args.out)?;
    if args.json {
        let text = serde_json::to_string_pretty(&results)
            .map_err(|source| BenchError::NotAResult { path, source })?;
        let _ = writeln!(io::stdout(), "{text}");
    } else {
        let _ = writeln!(io::stdout(), "{}", report::table(&results));
    }
    bench.progress.say(&format!("results and reports are in {}", args.out.display()));
    Ok(ExitCode::SUCCESS)
}
