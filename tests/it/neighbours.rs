//! How much a noisy neighbour is heard, and what an hour of noise leaves behind. Run by hand, and the
//! first on a quiet machine:
//! `cargo test --release --workspace --test it -- --ignored --nocapture neighbours`.
//! `CLOUDSERVE_SOAK_MINUTES` sets the length of the soak (default 1).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::support::{Account, Deploy, TestServer, deploy, wait_for};

const VICTIM: &str = "export default () => 'calm'";

/// What aggressors do: CPU, memory, log, files, crashes, connections, cold starts, leaks. Each call
/// says what it is for. Who starts cold ends its process after its answer.
const NOISE: &str = "
    import fs from 'node:fs';
    const ways = {
      cpu: () => { const end = Date.now() + 400; while (Date.now() < end); },
      memory: () => { const a = []; for (;;) a.push(new Array(1_000).fill(a.length)); },
      log: () => { for (let i = 0; i < 5_000; i++) console.log('x'.repeat(200)); },
      files: () => { const p = Buffer.alloc(1 << 20); for (let i = 0; i < 32; i++) fs.writeFileSync(`/tmp/${i}`, p); },
      crash: () => process.exit(1),
      connect: () => fetch('http://127.0.0.1:1/').catch(() => {}),
      cold: () => { setTimeout(() => process.exit(0), 1); },
      leak: () => { setInterval(() => {}, 1); fetch('http://127.0.0.1:1/').catch(() => {}); },
    };
    export default async ({ query }) => { await ways[query.way](); return 'done'; };
";
const WAYS: [&str; 8] = ["cpu", "memory", "log", "files", "crash", "connect", "cold", "leak"];

/// Functions of the aggressor, called in turn: a cold start is one of another function each time.
const FUNCTIONS: usize = 12;

/// Calls of the aggressor at the same time: twice the cores of the machine this is judged on.
const CALLERS: usize = 4;

/// How often a victim's p99 alone its p99 beside an aggressor may be.
const MOST_TIMES: f64 = 20.0;

struct Aggressor {
    account: Account,
    calls: AtomicUsize,
}

impl Aggressor {
    async fn deploy(account: Account) -> Self {
        for n in 0..FUNCTIONS {
            account.deploy(&noise(&format!("noise-{n}"))).await;
        }
        Self { account, calls: AtomicUsize::new(0) }
    }

    /// One call of the next function.
    async fn call(&self, way: &str) {
        let n = self.calls.fetch_add(1, Ordering::Relaxed) % FUNCTIONS;
        self.account.call(&format!("noise-{n}?way={way}")).await;
    }

    async fn call_until(&self, way: &str, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            self.call(way).await;
        }
    }
}

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

/// Short turns at the processor for the threads of this process, as the server has them: callers
/// are usually other machines, and do not wait for its functions' processors.
fn step_aside_from_the_server() {
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let thread: i32 = thread.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let attributes = libc::sched_attr {
            size: u32::try_from(size_of::<libc::sched_attr>()).unwrap(),
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 200_000,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: `attributes` is valid for the time of the call, which reads it only.
        unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
    }
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

#[ignore = "a measurement, run by hand"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_neighbour_is_measured() {
    let server = TestServer::start().await;
    let victim = server.register().await;
    victim.deploy(&deploy("calm", "calm.mjs", VICTIM)).await;
    let noisy = Aggressor::deploy(server.register().await).await;
    latencies(&victim, Duration::from_secs(1)).await;
    step_aside_from_the_server();
    eprintln!("load average before: {}", load_average());
    let alone = latencies(&victim, Duration::from_secs(5)).await;
    eprintln!("alone: p50 {:?} p99 {:?}", percentile(&alone, 50), percentile(&alone, 99));
    let mut worst: f64 = 0.0;
    for way in WAYS {
        let is_over = AtomicBool::new(false);
        let noise = join_all((0..CALLERS).map(|_| noisy.call_until(way, &is_over)));
        let measured = async {
            let seen = latencies(&victim, Duration::from_secs(5)).await;
            is_over.store(true, Ordering::Relaxed);
            seen
        };
        let (seen, _) = futures::join!(measured, noise);
        let p99 = percentile(&seen, 99);
        let times = p99.as_secs_f64() / percentile(&alone, 99).as_secs_f64();
        eprintln!("beside {way}: p50 {:?} p99 {p99:?}, {times:.1} times", percentile(&seen, 50));
        worst = worst.max(times);
    }
    eprintln!("load average after: {}", load_average());
    assert!(worst <= MOST_TIMES, "{worst:.1} times");
}

/// What the server holds.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident_kb: usize,
    children: usize,
    /// Directories of workers, and of builds.
    directories: usize,
    /// Rows are kept; what else is in the data directory is not to grow.
    other_files: usize,
}

fn entries(dir: impl AsRef<Path>) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Files under `dir`, those of databases left out.
fn files(dir: &Path) -> usize {
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => usize::from(!entry.file_name().to_string_lossy().contains(".db")),
    };
    listed.map(count).sum()
}

fn holdings(server: &TestServer) -> Holdings {
    let proc = format!("/proc/{}", server.pid());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let data = server.data_dir();
    Holdings {
        descriptors: entries(format!("{proc}/fd")),
        threads: entries(format!("{proc}/task")),
        resident_kb: kilobytes.unwrap_or(0),
        children: server.children().len(),
        directories: entries(data.join("workers")) + entries(data.join("builds")),
        other_files: files(&data),
    }
}

#[ignore = "a soak, run by hand"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_leaves_nothing_behind() {
    let minutes = std::env::var("CLOUDSERVE_SOAK_MINUTES").map_or(1, |text| text.parse().unwrap());
    let server = TestServer::start_with(&[("CLOUDSERVE_IDLE_EVICT_MS", "2000")]).await;
    let victim = server.register().await;
    victim.deploy(&deploy("calm", "calm.mjs", VICTIM)).await;
    let noisy = Aggressor::deploy(server.register().await).await;
    let settled = |what: &'static str| {
        wait_for(what, || async {
            // The pool, and the process it is forked from.
            (server.children().len() <= 5).then_some(())
        })
    };
    let soak = |length: Duration| {
        let (noisy, victim) = (&noisy, &victim);
        async move {
            let is_over = AtomicBool::new(false);
            let noise = join_all(WAYS.iter().map(|way| noisy.call_until(way, &is_over)));
            let calm = async {
                let seen = latencies(victim, length).await;
                is_over.store(true, Ordering::Relaxed);
                seen
            };
            futures::join!(calm, noise).0
        }
    };
    // What every kind of call needs once: connections, threads, caches.
    soak(Duration::from_secs(20)).await;
    settled("workers to be evicted").await;
    let before = holdings(&server);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(minutes * 60);
    eprintln!("at the beginning: {before:?}, load average {}", load_average());
    let mut n_calm = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        let seen = soak(left.min(Duration::from_secs(300))).await;
        settled("workers to be evicted").await;
        n_calm += seen.len();
        let after = begun.elapsed().as_secs();
        eprintln!("after {after} s: {:?}, p99 {:?}", holdings(&server), percentile(&seen, 99));
    }
    let after = holdings(&server);
    let n_noisy = noisy.calls.load(Ordering::Relaxed);
    eprintln!("{n_calm} calm calls, {n_noisy} noisy ones, load average {}", load_average());
    assert!(after.descriptors <= before.descriptors + 20, "descriptors");
    assert!(after.threads <= before.threads + 20, "threads");
    assert!(after.children <= before.children, "processes");
    assert!(after.directories <= before.directories + 5, "directories");
    assert!(after.other_files <= before.other_files + 20, "files");
    assert!(after.resident_kb <= before.resident_kb * 3 / 2 + 64 * 1024, "resident memory");
}
