//! What a call costs without HTTP. Not a test: run it on a quiet machine with
//! `cargo test --release -p cloudserve-sandbox --test figures -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::time::{Duration, Instant};

use cloudserve_protocol::call::VersionLoader;
use cloudserve_sandbox::SandboxOptions;

use support::{Bench, options, wait_until};

const HELLO: &str = "export default { fetch: () => new Response('hello') };";

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000].as_micros();
    println!(
        "{what}: n={} p50={} p90={} p99={} max={} µs",
        times.len(),
        at(500),
        at(900),
        at(990),
        at(1_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn warm_and_cold_calls() {
    let bench = Bench::start_with(SandboxOptions { pool_size: 8, ..options() }).await;
    let hello = bench.function(HELLO);
    bench.sandbox.load(hello.clone()).await.unwrap();
    for callers in [1, 2, 8] {
        let begun = Instant::now();
        let each = 20_000 / callers;
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (bench, hello) = (bench.clone(), hello.clone());
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(each);
                    for _ in 0..each {
                        let begun = Instant::now();
                        bench.get(&hello, "/").await;
                        times.push(begun.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        let per_second =
            times.len() * 1_000 / usize::try_from(begun.elapsed().as_millis()).unwrap();
        show(&format!("warm, {callers} callers, {per_second}/s"), times);
    }

    let mut times = Vec::new();
    for _ in 0..50 {
        wait_until("the pool is full", || bench.sandbox.metrics().workers_ready == 8).await;
        let function = bench.function(HELLO);
        let begun = Instant::now();
        bench.get(&function, "/").await;
        times.push(begun.elapsed());
    }
    show("cold, full pool", times);

    let empty = Bench::start_unready(SandboxOptions { pool_size: 0, ..options() });
    let mut times = Vec::new();
    for _ in 0..50 {
        let function = empty.function(HELLO);
        let begun = Instant::now();
        empty.get(&function, "/").await;
        times.push(begun.elapsed());
    }
    show("cold, no pool", times);

    let begun = Instant::now();
    let functions: Vec<_> = (0..100).map(|_| bench.function(HELLO)).collect();
    futures::future::join_all(functions.iter().map(|f| bench.get(f, "/"))).await;
    println!("100 functions at once: {} ms", begun.elapsed().as_millis());
}
