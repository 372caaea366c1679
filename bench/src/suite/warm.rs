//! Warm calls, closed loop, everybody in turn: a machine that gets slower gets slower for all.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Bench, deploy_workload, probe};
use crate::client::{Request, TcpLane};
use crate::error::BenchError;
use crate::load::{ClosedPlan, Expected, Record, closed, us_at};
use crate::results::{Better, Cell};
use crate::target::procfs::{CpuTime, own_thread_us};
use crate::target::{Home, Peer, PeerKind, Process, Server, ServerOptions};
use crate::workload::{HELLO, Workload};

/// One of those that take turns.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) process: &'a Process,
    pub(crate) address: SocketAddr,
    pub(crate) request: Request,
    pub(crate) body_bytes: u64,
    /// Some calls of it take a good part of a second: it gets one long turn instead of many.
    is_slow: bool,
}

/// The turn of a slow one. Others of its calls would be cut off more than they are measured.
const SLOW_WINDOW: Duration = Duration::from_secs(5);

/// What one of them did in all rounds.
#[derive(Default)]
struct Tally {
    record: Option<Record>,
    rates: Vec<f64>,
    p50s: Vec<f64>,
    p99s: Vec<f64>,
    cpu: CpuTime,
    client_us: u64,
    /// Calls while CPU time was counted, good or not.
    calls: u64,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.home("warm")?;
    let server = home.serve(&ServerOptions::default()).await?;
    let peers = bench.plan.peers.clone();
    let result =
        measure(bench, &home, &server, &HELLO, &peers, &bench.plan.connections.clone()).await;
    server.stop().await;
    result
}

/// Measures a workload on the server and on these peers.
pub(crate) async fn measure(
    bench: &mut Bench,
    home: &Home,
    server: &Server,
    workload: &Workload,
    kinds: &[PeerKind],
    connections: &[usize],
) -> Result<(), BenchError> {
    let request = deploy_workload(home, server, workload).await?;
    let body_bytes = probe("cloudserve", server.gateway, &request, workload).await?;
    let mut peers: Vec<(PeerKind, Peer)> = Vec::new();
    for kind in kinds.iter().copied().filter(|kind| kind.can(workload)) {
        match bench.peers.start(kind, workload).await {
            Ok(peer) => peers.push((kind, peer)),
            Err(error) => bench.note(format!(
                "{} / {}: not measured: {}",
                workload.name,
                kind.name(),
                error.whole()
            )),
        }
    }
    let mut contenders = vec![Contender {
        name: "cloudserve",
        process: server.process(),
        address: server.gateway,
        request,
        body_bytes,
        is_slow: false,
    }];
    for (kind, peer) in &peers {
        let request = peer.request(workload);
        match probe(kind.name(), peer.address, &request, workload).await {
            Ok(body_bytes) => contenders.push(Contender {
                name: kind.name(),
                process: &peer.process,
                address: peer.address,
                request,
                body_bytes,
                is_slow: *kind == PeerKind::Fork,
            }),
            Err(error) => bench.note(format!("{}: {}", workload.name, error.whole())),
        }
    }
    for n in connections {
        take_turns(bench, &contenders, workload, *n).await;
    }
    drop(contenders);
    for (_, peer) in peers {
        peer.stop().await;
    }
    Ok(())
}

async fn take_turns(
    bench: &mut Bench,
    contenders: &[Contender<'_>],
    workload: &Workload,
    connections: usize,
) {
    let plan = bench.plan.clone();
    let mut tallies: Vec<Tally> = contenders.iter().map(|_| Tally::default()).collect();
    for round in 0..plan.rounds {
        for turn in 0..contenders.len() {
            // Another order each round: nobody always follows the same one.
            let place = (turn + round) % contenders.len();
            let contender = &contenders[place];
            if contender.is_slow && round > 0 {
                continue;
            }
            let expected = Expected::warm(contender.body_bytes);
            let window = if contender.is_slow { plan.window.max(SLOW_WINDOW) } else { plan.window };
            let closed_plan = ClosedPlan {
                warm_up_ns: plan.warm_up.as_nanos() as u64,
                window_ns: window.as_nanos() as u64,
                expected,
            };
            let mut lanes = TcpLane::many(contender.address, connections);
            let mut before = (CpuTime::default(), 0);
            let requests = std::slice::from_ref(&contender.request);
            let record = closed(&bench.clock, &mut lanes, requests, &closed_plan, || {
                before = (contender.process.cpu_time(), own_thread_us());
            })
            .await;
            let tally = &mut tallies[place];
            tally.cpu += contender.process.cpu_time().since(before.0);
            tally.client_us += own_thread_us().saturating_sub(before.1);
            tally.calls += record.offered;
            tally.rates.push(record.rate());
            // Where nothing was answered there is a rate, which is none, and no latency.
            if !record.uncorrected.is_empty() {
                tally.p50s.push(us_at(&record.uncorrected, 0.5));
                tally.p99s.push(us_at(&record.uncorrected, 0.99));
            }
            record.add_to(&mut tally.record);
        }
    }
    for (contender, tally) in contenders.iter().zip(tallies) {
        let Some(record) = &tally.record else { continue };
        let variant = format!("{connections} connections");
        let mut cell =
            Cell::new("warm", contender.name, workload.name, &variant).recorded(record, false);
        cell.set_rounds("calls_per_second", &tally.rates, Better::Higher);
        cell.set_rounds("p50_us", &tally.p50s, Better::Lower);
        cell.set_rounds("p99_us", &tally.p99s, Better::Lower);
        let per_call = |us: u64| us as f64 / tally.calls.max(1) as f64;
        cell.set("cpu_us_per_call", per_call(tally.cpu.total_us()), Better::Lower);
        cell.set("cpu_us_per_call_server", per_call(tally.cpu.own_us), Better::Lower);
        cell.set("cpu_us_per_call_children", per_call(tally.cpu.children_us), Better::Lower);
        cell.set("client_us_per_call", per_call(tally.client_us), Better::Neither);
        let busy = tally.client_us as f64 * 1e3 / record.elapsed_ns.max(1) as f64;
        cell.set("client_busy", busy, Better::Neither);
        bench.keep(cell);
    }
}
