//! Hours in minutes: a steady open load at half the capacity, looked at in windows. Memory that
//! grows and a tail that gets longer are what it is for.

use std::time::Duration;

use super::open::{connected, nanos};
use super::{Bench, deploy_workload, probe};
use crate::client::TcpLane;
use crate::error::{BenchError, Doing};
use crate::load::{ClosedPlan, Expected, OpenPlan, closed, open, poisson};
use crate::results::{Better, Cell};
use crate::target::ServerOptions;
use crate::target::procfs::pss_of_tree;
use crate::workload::HELLO;

const WINDOW: Duration = Duration::from_secs(10);
const MB: f64 = 1024.0 * 1024.0;

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.home("soak")?;
    let server = home.serve(&ServerOptions::default()).await?;
    let request = deploy_workload(&home, &server, &HELLO).await?;
    let body_bytes = probe("cloudserve", server.gateway, &request, &HELLO).await?;
    let expected = Expected::warm(body_bytes);
    let plan = ClosedPlan {
        warm_up_ns: nanos(bench.plan.warm_up),
        window_ns: nanos(bench.plan.window),
        expected,
    };
    let requests = [request];
    let mut lanes = TcpLane::many(server.gateway, 32);
    let rate = closed(&bench.clock, &mut lanes, &requests, &plan, || {}).await.rate() / 2.0;
    drop(lanes);
    let windows = bench.plan.soak.as_secs().div_ceil(WINDOW.as_secs()).max(1);
    let mut lanes = connected(server.gateway, 64).await;
    for n in 0..windows {
        let schedule = poisson(rate.max(1.0), nanos(WINDOW), 1, bench.plan.seed + n);
        let plan = OpenPlan {
            warm_up_ns: 0,
            lasting_ns: nanos(WINDOW),
            max_in_flight: 10_000,
            drain_ns: nanos(Duration::from_secs(5)),
            expected,
        };
        let record = open(&bench.clock, &mut lanes, &requests, &schedule, &plan)
            .await
            .doing("no timer can be made")?;
        let variant = format!("window {n:03}");
        let mut cell =
            Cell::new("soak", "cloudserve", HELLO.name, &variant).recorded(&record, true);
        cell.set("calls_per_second", record.rate(), Better::Neither);
        let pss = pss_of_tree(server.process().pid()) as f64 / MB;
        cell.set("pss_mb", pss, Better::Lower);
        bench.keep(cell);
    }
    server.stop().await;
    Ok(())
}
