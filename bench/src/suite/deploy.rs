//! Deploys, from the request until the version is active.

use super::{Bench, deploy_of, deploy_workload};
use crate::error::BenchError;
use crate::results::{Better, Cell, Distribution};
use crate::target::ServerOptions;
use crate::workload::{HELLO, PACKAGES};

/// Deploys of each kind.
const DEPLOYS: usize = 15;

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.home("deploy")?;
    let server = home.serve(&ServerOptions::default()).await?;
    // The first one finds no tree of its packages; the others do.
    deploy_workload(&home, &server, &PACKAGES).await?;
    for (workload, variant) in [(HELLO, "no packages"), (PACKAGES, "cache hit")] {
        let mut took = crate::load::histogram();
        let mut rounds = Vec::new();
        for n in 0..DEPLOYS {
            let name = format!("{}-{n}", workload.name);
            let time = server.deploy(&deploy_of(&name, &workload)).await?;
            took.saturating_record(super::open::nanos(time));
            rounds.push(time.as_secs_f64() * 1e6);
        }
        let mut cell = Cell::new("deploy", "cloudserve", workload.name, variant);
        cell.latency = Distribution::of(&took);
        cell.set_rounds("p50_us", &rounds, Better::Lower);
        bench.keep(cell);
    }
    server.stop().await;
    Ok(())
}
