//! First calls: of functions nobody called since the server started, one at a time.
//!
//! A deploy loads its function once, so the server is started anew before each round: no worker
//! has the function then, while artifacts and code caches are on the node, as they are for a
//! function that was evicted. What is in memory only (routes, credentials) is cold, too; one call
//! of another function warms the credential.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, deploy_of, deploy_workload, fleet_names};
use crate::client::{Clock, Lane, Request, TcpLane};
use crate::error::{BenchError, Doing};
use crate::load::{Expected, Record, Recorder, Temperature, When, us_at};
use crate::results::{Better, Cell};
use crate::target::{Home, PeerKind, ServerOptions, free_address};
use crate::workload::{EXPRESS, HELLO, PACKAGES, Workload};

/// The size of the pool where there is one.
const POOL: usize = 4;
/// The calls before the first that counts: of a function that does not count.
const OPENER: &str = "opener";
/// By this age, a runtime has done what it puts off until nothing happens: V8 collects the heap of a process
/// that was left alone for half a minute.
const OLD: Duration = Duration::from_secs(40);
/// A started node is asked this often whether it answers.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// Starting node takes this long at most.
const NODE_START: Duration = Duration::from_secs(10);

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.fleet().await?;
    let names: Vec<String> = fleet_names(bench.plan.cold_functions).collect();
    let result = async {
        let opener = home.serve(&ServerOptions::with_pool(1)).await?;
        opener.deploy(&deploy_of(OPENER, &HELLO)).await?;
        opener.stop().await;
        for pool in [POOL, 0] {
            let rounds = bench.plan.cold_rounds;
            let first = FirstCalls { workload: &HELLO, pool, rounds, at_age: Duration::ZERO };
            first.measure(bench, &mut home, &names).await?;
        }
        let rounds = bench.plan.cold_rounds_when_old;
        let old = FirstCalls { workload: &HELLO, pool: POOL, rounds, at_age: OLD };
        old.measure(bench, &mut home, &names).await?;
        for workload in [PACKAGES, EXPRESS] {
            if let Err(error) = with_packages(bench, &mut home, &workload).await {
                bench.note(format!("cold / {}: not measured: {}", workload.name, error.whole()));
            }
        }
        Ok::<(), BenchError>(())
    }
    .await;
    bench.fleet = Some(home);
    result?;
    if bench.plan.peers.contains(&PeerKind::Node) {
        start_node(bench, &HELLO).await?;
    }
    Ok(())
}

/// The same with functions that bring packages.
async fn with_packages(
    bench: &mut Bench,
    home: &mut Home,
    workload: &Workload,
) -> Result<(), BenchError> {
    let n = bench.plan.cold_functions.div_ceil(5);
    let names: Vec<String> = (0..n).map(|n| format!("{}-{n}", workload.name)).collect();
    let server = home.serve(&ServerOptions::default()).await?;
    // The first one makes the dependency tree and proves the answer.
    deploy_workload(home, &server, workload).await?;
    for name in &names {
        server.deploy(&deploy_of(name, workload)).await?;
    }
    server.stop().await;
    let rounds = bench.plan.cold_rounds;
    let first = FirstCalls { workload, pool: POOL, rounds, at_age: Duration::ZERO };
    first.measure(bench, home, &names).await
}

/// Each function is called once by each of so many servers, which had begun before for so long.
struct FirstCalls<'a> {
    workload: &'a Workload,
    pool: usize,
    rounds: usize,
    at_age: Duration,
}

impl FirstCalls<'_> {
    fn variant(&self) -> &'static str {
        match (self.pool, self.at_age) {
            (0, _) => "no pool",
            (_, Duration::ZERO) => "warm pool",
            _ => "warm pool, old server",
        }
    }

    async fn measure(
        &self,
        bench: &mut Bench,
        home: &mut Home,
        names: &[String],
    ) -> Result<(), BenchError> {
        let mut all: Option<Record> = None;
        let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let record = self.round(bench, home, names).await?;
            p50s.push(us_at(&record.corrected, 0.5));
            p99s.push(us_at(&record.corrected, 0.99));
            record.add_to(&mut all);
        }
        let Some(record) = all else { return Ok(()) };
        let cell = Cell::new("cold", "cloudserve", self.workload.name, self.variant());
        let mut cell = cell.recorded(&record, false);
        cell.set_rounds("p50_us", &p50s, Better::Lower);
        // Of all rounds: one round has too few calls for a p99.
        if let Some(latency) = &cell.latency {
            let p99 = latency.p99_us;
            let noise = crate::results::median_and_noise(&p99s).and_then(|(_, noise)| noise);
            cell.figures.insert(
                "p99_us".to_owned(),
                crate::results::Figure { value: p99, better: Better::Lower, noise },
            );
        }
        bench.keep(cell);
        Ok(())
    }

    async fn round(
        &self,
        bench: &Bench,
        home: &mut Home,
        names: &[String],
    ) -> Result<Record, BenchError> {
        let server = home.serve(&ServerOptions::with_pool(self.pool)).await?;
        tokio::time::sleep(self.at_age).await;
        let mut lane = TcpLane::new(server.gateway);
        let opener = home.request(&server, OPENER, &HELLO);
        lane.call(&opener, false)
            .await
            .map_err(|source| BenchError::NoAnswer { name: "cloudserve".into(), source })?;
        let expected = Expected { status: 200, body_bytes: None, temperature: Temperature::Cold };
        let begin = bench.clock.now();
        let mut recorder = Recorder::new(expected, u64::MAX);
        for name in names {
            server.pool_is_full(self.pool).await?;
            let request = home.request(&server, name, self.workload);
            call(&bench.clock, &mut recorder, &mut lane, &request).await;
        }
        server.stop().await;
        Ok(recorder.finish(begin))
    }
}

async fn call(clock: &impl Clock, recorder: &mut Recorder, lane: &mut TcpLane, request: &Request) {
    let sent = clock.now();
    // Few calls: each is taken apart.
    let result = lane.call(request, true).await;
    recorder.offered();
    let when = When { scheduled: sent, sent, done: clock.now() };
    recorder.call(when, result.as_ref().map_err(|error| *error));
}

/// How long bare node takes from nothing to its first answer.
async fn start_node(bench: &mut Bench, workload: &Workload) -> Result<(), BenchError> {
    let mut took = Vec::new();
    for _ in 0..bench.plan.cold_functions.min(20) {
        let address = free_address()?;
        let request = workload.request(&address.to_string(), "/", "key");
        let mut command: Command = bench.peers.node_command(workload, address);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut node = command.spawn().doing("cannot start node")?;
        let mut lane = TcpLane::new(address);
        let first = loop {
            match lane.call(&request, false).await {
                Ok(_) => break Some(begun.elapsed()),
                Err(_) if begun.elapsed() > NODE_START => break None,
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        };
        let _ = node.kill();
        let _ = node.wait();
        took.extend(first.map(|first| first.as_secs_f64() * 1e6));
    }
    let mut cell = Cell::new("cold", "node", workload.name, "process start");
    cell.set_rounds("p50_us", &took, Better::Neither);
    bench.keep(cell);
    Ok(())
}
