//! Bursts: many calls at the same instant after a fresh start, of one function and of as many
//! functions as calls.

use std::time::Duration;

use super::open::{connected, nanos};
use super::{Bench, fleet_names};
use crate::client::Request;
use crate::error::{BenchError, Doing};
use crate::load::{Arrival, Expected, OpenPlan, Record, Temperature, open, us_at};
use crate::results::{Better, Cell};
use crate::target::{Home, ServerOptions};
use crate::workload::HELLO;

/// What comes later is an error.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.fleet().await?;
    let names: Vec<String> = fleet_names(bench.plan.cold_functions).collect();
    let n = names.len();
    let mut result = burst(bench, &mut home, &names[..1], n, "on one function").await;
    if result.is_ok() {
        result = burst(bench, &mut home, &names, n, "on distinct functions").await;
    }
    bench.fleet = Some(home);
    result
}

async fn burst(
    bench: &mut Bench,
    home: &mut Home,
    names: &[String],
    calls: usize,
    what: &str,
) -> Result<(), BenchError> {
    let mut all: Option<Record> = None;
    let mut lasts = Vec::new();
    let mut p50s = Vec::new();
    for _ in 0..bench.plan.rounds {
        let server = home.serve(&ServerOptions::default()).await?;
        let requests: Vec<Request> =
            names.iter().map(|name| home.request(&server, name, &HELLO)).collect();
        let schedule: Vec<Arrival> =
            (0..calls).map(|n| Arrival { at: 0, request: n % requests.len() }).collect();
        let plan = OpenPlan {
            warm_up_ns: 0,
            lasting_ns: nanos(PATIENCE),
            max_in_flight: calls,
            drain_ns: 0,
            expected: Expected { status: 200, body_bytes: None, temperature: Temperature::Any },
        };
        let mut lanes = connected(server.gateway, calls).await;
        let record = open(&bench.clock, &mut lanes, &requests, &schedule, &plan)
            .await
            .doing("no timer can be made")?;
        server.stop().await;
        lasts.push(record.corrected.max() as f64 / 1e3);
        p50s.push(us_at(&record.corrected, 0.5));
        record.add_to(&mut all);
    }
    let Some(record) = all else { return Ok(()) };
    let variant = format!("{calls} calls {what}");
    let mut cell = Cell::new("burst", "cloudserve", HELLO.name, &variant).recorded(&record, true);
    cell.set_rounds("p50_us", &p50s, Better::Lower);
    cell.set_rounds("last_us", &lasts, Better::Lower);
    cell.set("cold_calls", record.cold as f64 / bench.plan.rounds as f64, Better::Neither);
    bench.keep(cell);
    Ok(())
}
