//! How much a noisy neighbour is heard, and what an hour of noise leaves behind. Run by hand:
//! `cargo test --release --workspace --test it -- --ignored --nocapture neighbours`.
//! `CLOUDSERVE_SOAK_MINUTES` sets the length of the soak (default 1).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::support::{Account, Deploy, TestServer, deploy, wait_for};

const VICTIM: &str = "export default () => 'calm'";

/// What aggressors do: CPU, memory, log, files, crashes. Each call says what it is for.
const NOISE: &str = "
    import fs from 'node:fs';
    const ways = {
      cpu: () => { const end = Date.now() + 400; while (Date.now() < end); },
      memory: () => { const a = []; for (;;) a.push(new Array(1_000).fill(a.length)); },
      log: () => { for (let i = 0; i < 5_000; i++) console.log('x'.repeat(200)); },
      files: () => { const p = Buffer.alloc(1 << 20); for (let i = 0; i < 32; i++) fs.writeFileSync(`/tmp/${i}`, p); },
      crash: () => process.exit(1),
      connect: () => fetch('http://127.0.0.1:1/').catch(() => {}),
    };
    export default async ({ query }) => { await ways[query.way](); return 'done'; };
";
const WAYS: [&str; 6] = ["cpu", "memory", "log", "files", "crash", "connect"];

fn noise(name: &str) -> Deploy {
    let limits = json!({ "timeoutMs": 2_000, "memoryMb": 64, "concurrency": 4 });
    deploy(name, "noise.mjs", NOISE).with("limits", limits)
}

/// Latencies of calls one after the other for this long, sorted.
async fn latencies(victim: &Account, length: Duration) -> Vec<Duration> {
    let mut seen = Vec::new();
    let end = Instant::now() + length;
    while Instant::now() < end {
        let begun = Instant::now();
        assert_eq!(victim.call("calm").await.expect(200).text(), "calm");
        seen.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen.sort();
    seen
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[ignore = "a measurement, run by hand"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_neighbour_is_measured() {
    let server = TestServer::start().await;
    let (victim, noisy) = (server.register().await, server.register().await);
    victim.deploy(&deploy("calm", "calm.mjs", VICTIM)).await;
    noisy.deploy(&noise("noise")).await;
    latencies(&victim, Duration::from_secs(1)).await;
    let alone = latencies(&victim, Duration::from_secs(5)).await;
    eprintln!("alone: p50 {:?} p99 {:?}", percentile(&alone, 50), percentile(&alone, 99));
    for way in WAYS {
        let is_over = AtomicBool::new(false);
        let path = format!("noise?way={way}");
        let noise = join_all((0..4).map(|_| async {
            while !is_over.load(Ordering::Relaxed) {
                noisy.call(&path).await;
            }
        }));
        let measured = async {
            let seen = latencies(&victim, Duration::from_secs(5)).await;
            is_over.store(true, Ordering::Relaxed);
            seen
        };
        let (seen, _) = futures::join!(measured, noise);
        let p99 = percentile(&seen, 99);
        let times = p99.as_secs_f64() / percentile(&alone, 99).as_secs_f64();
        eprintln!("beside {way}: p50 {:?} p99 {p99:?}, {times:.1} times", percentile(&seen, 50));
    }
}

/// Descriptors, threads and resident kilobytes of the server; its children.
fn holdings(server: &TestServer) -> [usize; 4] {
    let proc = format!("/proc/{}", server.pid());
    let count = |dir: &str| std::fs::read_dir(format!("{proc}/{dir}")).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
    [count("fd"), count("task"), kilobytes.unwrap_or(0), server.children().len()]
}

#[ignore = "a soak, run by hand"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_leaves_nothing_behind() {
    let minutes = std::env::var("CLOUDSERVE_SOAK_MINUTES").map_or(1, |text| text.parse().unwrap());
    let server = TestServer::start_with(&[("CLOUDSERVE_IDLE_EVICT_MS", "2000")]).await;
    let (victim, noisy) = (server.register().await, server.register().await);
    victim.deploy(&deploy("calm", "calm.mjs", VICTIM)).await;
    noisy.deploy(&noise("noise")).await;
    let settled = |what: &'static str| {
        wait_for(what, || async {
            // The pool, and the process it is forked from.
            (server.children().len() <= 5).then_some(())
        })
    };
    for way in WAYS {
        noisy.call(&format!("noise?way={way}")).await;
    }
    settled("workers to be evicted").await;
    let before = holdings(&server);
    let is_over = AtomicBool::new(false);
    let (noise_of, is_done) = (&noisy, &is_over);
    let noise = join_all(WAYS.iter().map(|way| async move {
        while !is_done.load(Ordering::Relaxed) {
            noise_of.call(&format!("noise?way={way}")).await;
        }
    }));
    let calm = async {
        let seen = latencies(&victim, Duration::from_secs(minutes * 60)).await;
        is_over.store(true, Ordering::Relaxed);
        seen
    };
    let (seen, _) = futures::join!(calm, noise);
    settled("workers to be evicted again").await;
    let after = holdings(&server);
    eprintln!("{} calm calls, p99 {:?}", seen.len(), percentile(&seen, 99));
    eprintln!("descriptors, threads, resident KB, children: {before:?} then {after:?}");
    assert!(after[0] <= before[0] + 20, "descriptors");
    assert!(after[1] <= before[1] + 20, "threads");
    let left = std::fs::read_dir(server.data_dir().join("workers")).unwrap().count();
    assert!(left <= 5, "{left} directories of workers");
}
