//! What is measured, one module per question.

mod burst;
mod capacity;
mod cold;
mod deploy;
mod open;
mod routing;
mod soak;
mod trace;
mod warm;
mod workloads;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::client::RealClock;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::results::Cell;
use crate::target::{Deploy, Home, PeerKind, Peers, Server, ServerOptions};
use crate::workload::{HELLO, Workload};

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Warm hello against every peer, by number of connections.
    Warm,
    /// First calls: with a pool, without one, with packages; against starting node.
    Cold,
    /// The other workloads against the peers.
    Workloads,
    /// Open load: ramp to the knee, and half of it.
    Open,
    /// Many calls at once, on one function and on as many.
    Burst,
    /// How fast the pool fills; memory of idle warm functions.
    Capacity,
    /// Deploys, with and without packages.
    Deploy,
    /// Few functions against many.
    Routing,
    /// A trace shaped as that of Azure Functions.
    Trace,
    /// A steady load for long.
    Soak,
}

impl Suite {
    /// A short run has these.
    pub(crate) const QUICK: [Self; 2] = [Self::Warm, Self::Cold];
    /// A usual run has all but the soak.
    pub(crate) const USUAL: [Self; 9] = [
        Self::Warm,
        Self::Cold,
        Self::Workloads,
        Self::Open,
        Self::Burst,
        Self::Capacity,
        Self::Deploy,
        Self::Routing,
        Self::Trace,
    ];
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) connections: Vec<usize>,
    pub(crate) peers: Vec<PeerKind>,
    /// Functions whose first call is measured, and how often all of them are.
    pub(crate) cold_functions: usize,
    pub(crate) cold_rounds: usize,
    /// The same by a server that has been up for long.
    pub(crate) cold_rounds_when_old: usize,
    /// Functions of the fleet: those above, and more to be warm at the same time.
    pub(crate) fleet: usize,
    /// How long a step of an open load lasts.
    pub(crate) step: Duration,
    /// Functions deployed where many are.
    pub(crate) routed_functions: usize,
    pub(crate) trace_functions: usize,
    /// Calls per second of the trace, on average.
    pub(crate) trace_rate: f64,
    pub(crate) trace: Duration,
    pub(crate) soak: Duration,
}

/// Everything a suite works with.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) clock: RealClock,
    pub(crate) peers: Peers,
    pub(crate) program: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Given to every server.
    pub(crate) extra: Vec<(String, String)>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) notes: Vec<String>,
    pub(crate) progress: Progress,
    /// Servers of the fleet: a home with the functions that many suites call.
    pub(crate) fleet: Option<Home>,
}

impl Bench {
    /// Runs a suite; what it cannot measure is noted.
    pub(crate) async fn run(&mut self, suite: Suite) {
        let begun = Instant::now();
        let result = match suite {
            Suite::Warm => warm::run(self).await,
            Suite::Cold => cold::run(self).await,
            Suite::Workloads => workloads::run(self).await,
            Suite::Open => open::run(self).await,
            Suite::Burst => burst::run(self).await,
            Suite::Capacity => capacity::run(self).await,
            Suite::Deploy => deploy::run(self).await,
            Suite::Routing => routing::run(self).await,
            Suite::Trace => trace::run(self).await,
            Suite::Soak => soak::run(self).await,
        };
        if let Err(error) = result {
            self.note(format!("{suite:?}: not measured to the end: {}", error.whole()));
        }
        self.progress.say(&format!("{suite:?} took {:.0} s", begun.elapsed().as_secs_f64()));
    }

    pub(crate) fn note(&mut self, note: String) {
        self.progress.say(&note);
        self.notes.push(note);
    }

    /// Keeps what was measured, and tells of it.
    pub(crate) fn keep(&mut self, cell: Cell) {
        self.progress.cell(&cell);
        self.cells.push(cell);
    }

    /// A home of its own for a suite.
    pub(crate) fn home(&self, name: &str) -> Result<Home, BenchError> {
        Home::new(&self.scratch.join(name), &self.program, &self.extra)
    }

    /// A home with an account and the fleet in it.
    pub(crate) async fn fleet(&mut self) -> Result<Home, BenchError> {
        if let Some(home) = self.fleet.take() {
            return Ok(home);
        }
        let n = self.plan.fleet;
        self.progress.say(&format!("deploying {n} functions"));
        let mut home = self.home("fleet")?;
        let server = home.serve(&ServerOptions::default()).await?;
        for name in fleet_names(n) {
            server.deploy(&deploy_of(&name, &HELLO)).await?;
        }
        server.stop().await;
        Ok(home)
    }
}

/// Names of the functions of the fleet.
pub(crate) fn fleet_names(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|n| format!("fleet-{n}"))
}

/// A workload under a name.
pub(crate) fn deploy_of(name: &str, workload: &Workload) -> Deploy {
    Deploy {
        name: name.to_owned(),
        // Distinct sources have distinct bundles; equal ones would share their code cache.
        code: format!("// {name}\n{}", workload.code),
        dependencies: workload.dependencies(),
    }
}

/// Deploys a workload under its own name and calls it until it answers as it must.
pub(crate) async fn deploy_workload(
    home: &Home,
    server: &Server,
    workload: &Workload,
) -> Result<crate::client::Request, BenchError> {
    server.deploy(&deploy_of(workload.name, workload)).await?;
    let request = home.request(server, workload.name, workload);
    probe("cloudserve", server.gateway, &request, workload).await?;
    Ok(request)
}

/// Makes one call and checks the answer; gives the length of its body.
pub(crate) async fn probe(
    name: &str,
    address: std::net::SocketAddr,
    request: &crate::client::Request,
    workload: &Workload,
) -> Result<u64, BenchError> {
    let mut lane = crate::client::TcpLane::new(address);
    let (answer, content) = lane
        .fetch(request)
        .await
        .map_err(|source| BenchError::NoAnswer { name: name.to_owned(), source })?;
    if answer.status == 200 && workload.accepts(&content) {
        return Ok(answer.body_bytes);
    }
    let body = String::from_utf8_lossy(&content).chars().take(500).collect();
    Err(BenchError::WrongAnswer {
        name: name.to_owned(),
        workload: workload.name.to_owned(),
        status: answer.status,
        body,
    })
}
