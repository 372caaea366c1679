//! Whether a call takes longer where many functions are deployed: the same ten functions are called
//! on a server that has no others and on one that has many, in turn.

use futures::{StreamExt, TryStreamExt, stream};

use super::open::nanos;
use super::{Bench, deploy_of, fleet_names};
use crate::client::{Request, TcpLane};
use crate::error::BenchError;
use crate::load::{ClosedPlan, Expected, Record, Temperature, closed, us_at};
use crate::results::{Better, Cell};
use crate::target::ServerOptions;
use crate::workload::HELLO;

const FEW: usize = 10;
/// Deploys sent at the same time.
const DEPLOYING: usize = 8;
/// Each of the ten has a connection.
const CONNECTIONS: usize = FEW;

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let many = bench.plan.routed_functions;
    let mut homes = Vec::new();
    for n in [FEW, many] {
        let mut home = bench.home(&format!("routing-{n}"))?;
        let server = home.serve(&ServerOptions::default()).await?;
        bench.progress.say(&format!("deploying {n} functions"));
        let names: Vec<String> = fleet_names(n).collect();
        stream::iter(&names)
            .map(|name| async { server.deploy(&deploy_of(name, &HELLO)).await.map(drop) })
            .buffer_unordered(DEPLOYING)
            .try_collect::<Vec<()>>()
            .await?;
        server.stop().await;
        homes.push((n, home));
    }
    let mut sides = Vec::new();
    for (n, home) in &mut homes {
        let server = home.serve(&ServerOptions::default()).await?;
        let requests: Vec<Request> =
            fleet_names(FEW).map(|name| home.request(&server, &name, &HELLO)).collect();
        sides.push((*n, server, requests, None::<Record>, Vec::new(), Vec::new()));
    }
    for round in 0..bench.plan.rounds * 2 {
        for turn in 0..sides.len() {
            let n_sides = sides.len();
            let (_, server, requests, all, p50s, rates) = &mut sides[(turn + round) % n_sides];
            let plan = ClosedPlan {
                warm_up_ns: nanos(bench.plan.warm_up),
                window_ns: nanos(bench.plan.window),
                expected: Expected {
                    status: 200,
                    body_bytes: None,
                    temperature: Temperature::Warm,
                },
            };
            let mut lanes = TcpLane::many(server.gateway, CONNECTIONS);
            let record = closed(&bench.clock, &mut lanes, requests, &plan, || {}).await;
            p50s.push(us_at(&record.corrected, 0.5));
            rates.push(record.rate());
            record.add_to(all);
        }
    }
    for (n, server, _, record, p50s, rates) in sides {
        server.stop().await;
        let Some(record) = record else { continue };
        let variant = format!("{n} functions");
        let mut cell =
            Cell::new("routing", "cloudserve", HELLO.name, &variant).recorded(&record, false);
        cell.set_rounds("p50_us", &p50s, Better::Lower);
        cell.set_rounds("calls_per_second", &rates, Better::Higher);
        bench.keep(cell);
    }
    Ok(())
}
