//! How fast the pool fills, and what a warm function that nobody calls holds in memory.

use std::time::{Duration, Instant};

use super::{Bench, fleet_names};
use crate::client::{Lane, TcpLane};
use crate::error::BenchError;
use crate::results::{Better, Cell};
use crate::target::procfs::{pss_bytes, pss_of_tree};
use crate::target::{Home, ServerOptions};
use crate::workload::HELLO;

/// Workers of the pool whose filling is timed.
const REFILL_POOL: usize = 100;
/// How often the pool is looked at while it fills. Looking costs the server something.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The pool while memory is measured.
const SMALL_POOL: usize = 4;
/// After the last call, time for what is done on the side.
const SETTLE: Duration = Duration::from_secs(1);
const MB: f64 = 1024.0 * 1024.0;

pub(crate) async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let mut home = bench.fleet().await?;
    let mut result = refill(bench, &mut home).await;
    if result.is_ok() {
        result = memory(bench, &mut home).await;
    }
    bench.fleet = Some(home);
    result
}

/// A server's start fills the pool: the rate from the first worker to the last.
async fn refill(bench: &mut Bench, home: &mut Home) -> Result<(), BenchError> {
    let mut rates = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..bench.plan.rounds {
        let server = home.serve(&ServerOptions::with_pool(REFILL_POOL)).await?;
        starts.push(server.ready_after.as_secs_f64() * 1e3);
        let (first, begun) = (server.workers("ready").await?, Instant::now());
        let mut ready = first;
        while ready < REFILL_POOL && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(LOOK_EVERY).await;
            ready = server.workers("ready").await?;
        }
        let took = begun.elapsed().as_secs_f64();
        // A pool that was full at the first look is too fast to be timed so; leave it out.
        if ready > first {
            rates.push((ready - first) as f64 / took);
        }
        server.stop().await;
    }
    let mut cell = Cell::new("capacity", "cloudserve", "", "pool refill");
    cell.set_rounds("workers_per_second", &rates, Better::Higher);
    cell.set_rounds("server_ready_ms", &starts, Better::Lower);
    bench.keep(cell);
    Ok(())
}

/// What all workers hold with so many functions warm, per function; and how much more that is than
/// they held with none.
async fn memory(bench: &mut Bench, home: &mut Home) -> Result<(), BenchError> {
    let names: Vec<String> = fleet_names(bench.plan.fleet).collect();
    let options = ServerOptions {
        max_workers: Some(names.len() + 100),
        ..ServerOptions::with_pool(SMALL_POOL)
    };
    let server = home.serve(&options).await?;
    server.pool_is_full(SMALL_POOL).await?;
    let pid = server.process().pid();
    let workers = || (pss_of_tree(pid) as f64 - pss_bytes(pid).unwrap_or(0) as f64) / MB;
    let before = workers();
    let mut lane = TcpLane::new(server.gateway);
    let mut answered = 0;
    for name in &names {
        let request = home.request(&server, name, &HELLO);
        answered += usize::from(lane.call(&request, false).await.is_ok_and(|a| a.status == 200));
    }
    server.pool_is_full(SMALL_POOL).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = server.workers("idle").await?;
    let after = workers();
    let mut cell = Cell::new("capacity", "cloudserve", HELLO.name, "idle warm functions");
    // Not what was called, but what is warm: some may have been evicted.
    let functions = idle.min(answered);
    if functions > 0 {
        // The pool and whatever workers are made from are in the first figure, not in the second.
        cell.set("pss_mb_per_function", after / functions as f64, Better::Lower);
        cell.set("added_mb_per_function", (after - before) / functions as f64, Better::Lower);
    }
    cell.set("functions", functions as f64, Better::Neither);
    cell.set("server_pss_mb", pss_bytes(pid).unwrap_or(0) as f64 / MB, Better::Lower);
    server.stop().await;
    bench.keep(cell);
    if functions < names.len() {
        bench.note(format!(
            "memory: {answered} of {} functions answered, {idle} workers were idle after that",
            names.len()
        ));
    }
    Ok(())
}
