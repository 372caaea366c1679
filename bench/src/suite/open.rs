//! Open load: up in steps until the server does not keep up (the knee), then at half of that for
//! longer, where a server is that somebody has sized well.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Bench, deploy_workload, probe};
use crate::client::{Request, TcpLane};
use crate::error::{BenchError, Doing};
use crate::load::{
    Arrival, ClosedPlan, Expected, OpenPlan, Record, closed, fixed, open, poisson, us_at,
};
use crate::results::{Better, Cell};
use crate::target::{PeerKind, ServerOptions};
use crate::workload::HELLO;

/// Connections an open load uses. More calls than that wait, and their wait counts.
const LANES: usize = 64;
/// Calls in flight or waiting; more are errors.
const MAX_IN_FLIGHT: usize = 10_000;
/// After the schedule, answers may take this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Offered rates as shares of what a closed loop reaches.
const STEPS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// A server keeps up while it answers this share of what is offered ...
const KEPT_UP: f64 = 0.97;
/// ... and one call in a hundred waits no longer than this.
const KNEE_P99_US: f64 = 50_000.0;

/// Who gets the load.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    request: Request,
    body_bytes: u64,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.home("open")?;
    let server = home.serve(&ServerOptions::default()).await?;
    let request = deploy_workload(&home, &server, &HELLO).await?;
    let body_bytes = probe("cloudserve", server.gateway, &request, &HELLO).await?;
    let ours = Subject { name: "cloudserve", address: server.gateway, request, body_bytes };
    subject(bench, &ours).await?;
    server.stop().await;
    if bench.plan.peers.contains(&PeerKind::Node) {
        let node = bench.peers.start(PeerKind::Node, &HELLO).await?;
        let request = node.request(&HELLO);
        let body_bytes = probe("node", node.address, &request, &HELLO).await?;
        subject(bench, &Subject { name: "node", address: node.address, request, body_bytes })
            .await?;
        node.stop().await;
    }
    Ok(())
}

async fn subject(bench: &mut Bench, subject: &Subject) -> Result<(), BenchError> {
    let capacity = capacity(bench, subject).await;
    let (mut knee, mut missed) = (None, 0);
    for (n, share) in STEPS.into_iter().enumerate() {
        let offered = (capacity * share).max(1.0);
        let lasting = bench.plan.step;
        let schedule = poisson(offered, nanos(lasting), 1, bench.plan.seed + n as u64);
        let record = offer(bench, subject, &schedule, lasting).await?;
        let variant = format!("step {:02}", n + 1);
        let mut cell =
            Cell::new("open", subject.name, HELLO.name, &variant).recorded(&record, true);
        cell.set("offered_per_second", offered, Better::Neither);
        cell.set("calls_per_second", record.rate(), Better::Neither);
        // One step is short; what is to be compared comes below.
        cell.figures.values_mut().for_each(|figure| figure.better = Better::Neither);
        let p99 = cell.value("p99_us").unwrap_or(f64::INFINITY);
        let due = record.offered as f64 * 1e9 / record.elapsed_ns.max(1) as f64;
        let keeps_up = record.rate() >= due * KEPT_UP && p99 <= KNEE_P99_US;
        bench.progress.say(&format!(
            "{}: {offered:.0}/s offered, {:.0}/s answered, p99 {p99:.0} us",
            cell.key(),
            record.rate()
        ));
        bench.cells.push(cell);
        if keeps_up {
            (knee, missed) = (Some(offered), 0);
        } else {
            missed += 1;
        }
        // One step may have met something else that ran; two in a row are the knee.
        if missed == 2 {
            break;
        }
    }
    let Some(knee) = knee else {
        bench.note(format!("open / {}: it does not keep up with any step", subject.name));
        return Ok(());
    };
    let mut cell = Cell::new("open", subject.name, HELLO.name, "knee");
    cell.set("calls_per_second", knee, Better::Neither);
    bench.cells.push(cell);
    half(bench, subject, knee / 2.0).await
}

/// What a closed loop reaches.
async fn capacity(bench: &Bench, subject: &Subject) -> f64 {
    let plan = ClosedPlan {
        warm_up_ns: nanos(bench.plan.warm_up),
        window_ns: nanos(bench.plan.window),
        expected: Expected::warm(subject.body_bytes),
    };
    let mut lanes = TcpLane::many(subject.address, 32);
    let requests = std::slice::from_ref(&subject.request);
    closed(&bench.clock, &mut lanes, requests, &plan, || {}).await.rate()
}

async fn half(bench: &mut Bench, subject: &Subject, offered: f64) -> Result<(), BenchError> {
    for kind in ["poisson", "fixed"] {
        let mut all: Option<Record> = None;
        let (mut p50s, mut p99s, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..bench.plan.rounds {
            let lasting = bench.plan.step * 2;
            let schedule = match kind {
                "poisson" => {
                    poisson(offered, nanos(lasting), 1, bench.plan.seed + 100 + round as u64)
                }
                _ => fixed(offered, nanos(lasting), 1),
            };
            let record = offer(bench, subject, &schedule, lasting).await?;
            let at = |share: f64| us_at(&record.corrected, share);
            p50s.push(at(0.5));
            p99s.push(at(0.99));
            ratios.push(at(0.99) / at(0.5));
            record.add_to(&mut all);
        }
        let Some(record) = all else { continue };
        let variant = format!("half the knee, {kind}");
        let mut cell =
            Cell::new("open", subject.name, HELLO.name, &variant).recorded(&record, true);
        cell.set("offered_per_second", offered, Better::Neither);
        cell.set("calls_per_second", record.rate(), Better::Neither);
        cell.set_rounds("p50_us", &p50s, Better::Lower);
        cell.set_rounds("p99_us", &p99s, Better::Lower);
        cell.set_rounds("p99_over_p50", &ratios, Better::Lower);
        bench.keep(cell);
    }
    Ok(())
}

async fn offer(
    bench: &Bench,
    subject: &Subject,
    schedule: &[Arrival],
    lasting: Duration,
) -> Result<Record, BenchError> {
    let plan = OpenPlan {
        warm_up_ns: nanos(lasting) / 5,
        lasting_ns: nanos(lasting),
        max_in_flight: MAX_IN_FLIGHT,
        drain_ns: nanos(DRAIN),
        expected: Expected::warm(subject.body_bytes),
    };
    let mut lanes = connected(subject.address, LANES).await;
    let requests = std::slice::from_ref(&subject.request);
    open(&bench.clock, &mut lanes, requests, schedule, &plan).await.doing("no timer can be made")
}

/// Lanes that need not connect when the first call is due. One that cannot says so then.
pub(crate) async fn connected(address: SocketAddr, n: usize) -> Vec<TcpLane> {
    let mut lanes = TcpLane::many(address, n);
    for lane in &mut lanes {
        let _ = lane.connect().await;
    }
    lanes
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
