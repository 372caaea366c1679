//! How worker processes come to be: forked from a zygote, or programs of their own.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use cloudserve_protocol::call::VersionLoader;
use cloudserve_sandbox::{LaunchMode, SandboxOptions};
use serde_json::{Value, json};

use support::{Bench, kill, options, wait_until, zygotes_and_workers};

const MODES: [LaunchMode; 2] = [LaunchMode::Zygote, LaunchMode::Process];

async fn bench_with(launch: LaunchMode) -> Bench {
    Bench::start_with(SandboxOptions { launch, ..options() }).await
}

/// What must not be the same in two processes that were one.
const UNIQUE: &str = "
    import { randomBytes, randomUUID, generateKeyPairSync } from 'node:crypto';
    import { pid } from 'node:process';
    export default () => [
        Math.random(), crypto.randomUUID(), randomUUID(), randomBytes(8).toString('hex'),
        [...crypto.getRandomValues(new Uint8Array(8))].join(),
        generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }),
        process.pid, pid,
    ];";

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_no_random_numbers_and_know_their_process() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        let mut seen = HashSet::new();
        let mut expected = 0;
        for _ in 0..4 {
            let answer = bench.get(&bench.function(UNIQUE), "/").await;
            let values: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
            let (pids, random) = (&values[6..], &values[..6]);
            assert_eq!(pids[0], pids[1], "{mode:?}");
            seen.extend(random.iter().chain([&pids[0]]).map(ToString::to_string));
            expected += random.len() + 1;
            let stat = fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap();
            let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
            assert_eq!(parent, std::process::id().to_string(), "{mode:?}");
        }
        assert_eq!(seen.len(), expected, "{mode:?}");
    }
}

/// What `node:process` has from before the process was one's own, and the clock.
const PROCESS: &str = "
    import { setTimeout } from 'node:timers/promises';
    import nodeProcess, { argv, execPath, nextTick, pid, platform, ppid } from 'node:process';
    export default async () => {
        await new Promise((resolve) => nextTick(resolve));
        const before = process.hrtime.bigint();
        await setTimeout(2);
        const [seconds, nanos] = process.hrtime();
        return {
            ids: [process.pid, pid, nodeProcess.pid, Deno.pid],
            parents: [process.ppid, ppid, Deno.ppid],
            paths: [argv[0], process.argv[0], execPath, process.execPath],
            bundles: [`file://${argv[1]}`, import.meta.url],
            kinds: [
                process === nodeProcess, argv.length, process.argv0, platform, process.exitCode,
                process.listenerCount('warning'), process.stdout.fd, process.stderr.fd,
                process.hrtime.bigint() > before,
            ],
            origin: performance.timeOrigin,
            skew: performance.timeOrigin + performance.now() - Date.now(),
            ages: [performance.now(), process.uptime() * 1e3, seconds * 1e3 + nanos / 1e6],
        };
    };";

#[tokio::test(flavor = "multi_thread")]
async fn workers_know_their_process_and_begin_their_clock() {
    let program = fs::canonicalize(options().worker_program).unwrap();
    for mode in MODES {
        let started = Instant::now();
        let bench = bench_with(mode).await;
        let mut ids = HashSet::new();
        let mut origins = HashSet::new();
        for _ in 0..4 {
            let answer = bench.get(&bench.function(PROCESS), "/").await;
            let seen: Value = serde_json::from_slice(&answer.body).unwrap();
            let all_are = |name: &str, wanted: &Value| {
                let values = seen[name].as_array().unwrap();
                assert!(values.iter().all(|value| value == wanted), "{mode:?} {name}: {seen}");
            };
            let id = &seen["ids"][0];
            all_are("ids", id);
            all_are("parents", &json!(std::process::id()));
            all_are("paths", &json!(program));
            all_are("bundles", &seen["bundles"][1]);
            let kinds = json!([true, 2, "", "linux", null, 1, 1, 2, true]);
            assert_eq!(seen["kinds"], kinds, "{mode:?}");
            assert!(seen["skew"].as_f64().unwrap().abs() < 1e3, "{mode:?}: {seen}");
            for age in seen["ages"].as_array().unwrap() {
                let elapsed = started.elapsed().as_secs_f64() * 1e3;
                assert!((0.0..elapsed).contains(&age.as_f64().unwrap()), "{mode:?}: {seen}");
            }
            ids.insert(id.to_string());
            origins.insert(seen["origin"].to_string());
        }
        assert_eq!((ids.len(), origins.len()), (4, 4), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_before_the_server_when_memory_runs_out() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        let pid = bench.get(&bench.function("export default () => process.pid;"), "/").await.text();
        let standing = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(standing.trim(), "1000", "{mode:?}");
    }
}

/// V8 finishes these in tasks of its own, which somebody has to run.
const DEFERRED: &str = "
    const empty = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
    const loaded = await WebAssembly.compile(empty);
    export default async () => {
        const { instance } = await WebAssembly.instantiate(empty);
        const waited = Atomics.waitAsync(
            new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
        await new Promise((resolve) => setTimeout(resolve, 5));
        return [loaded instanceof WebAssembly.Module, typeof instance.exports, await waited.value];
    };";

#[tokio::test(flavor = "multi_thread")]
async fn what_v8_puts_off_is_done() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        let deferred = bench.function(DEFERRED);
        for _ in 0..2 {
            let answer = bench.get(&deferred, "/").await;
            assert_eq!(answer.text(), r#"[true,"object","timed-out"]"#, "{mode:?}");
        }
    }
}

/// What a function can see of how its worker came to be.
const SURROUNDINGS: &str = "
    const look = () => [
        process.argv.map((path) => path.split('/').pop()), Object.getOwnPropertyNames(globalThis),
        process.getActiveResourcesInfo(), String(console.log),
    ];
    const atLoad = look();
    export default (event, context) =>
        [atLoad, look(), event.path, context.functionName, Object.keys(context)];";

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_leaves_no_trace() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        // One that is made for a call does not rehearse in its own process; one that waits does.
        let mut views = HashSet::new();
        for _ in 0..3 {
            let answer = bench.get(&bench.function(SURROUNDINGS), "/seen").await;
            assert!(!answer.text().contains("rehears"), "{mode:?}: {}", answer.text());
            assert!(answer.text().contains("/seen"), "{mode:?}: {}", answer.text());
            views.insert(answer.text());
        }
        assert_eq!(views.len(), 1, "{mode:?}: {views:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_cache_has_what_a_call_has_compiled() {
    let bench = Bench::start().await;
    // It is over in the turn in which it began.
    let hello = bench.function("export default () => ({ message: ['hello', 'world'].join(' ') });");
    bench.sandbox.load(hello.clone()).await.unwrap();
    wait_until("one is kept", || !bench.code_caches().is_empty()).await;
    let loaded = bench.code_caches();
    // Another worker, which is given that one; it is called, since it was used last.
    bench.sandbox.load(hello.clone()).await.unwrap();
    bench.get(&hello, "/").await;
    wait_until("a larger one is kept", || bench.code_caches().iter().max() > loaded.iter().max())
        .await;
}

fn zygotes() -> Vec<i32> {
    zygotes_and_workers().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_dies_takes_no_worker_along_and_is_replaced() {
    // Other tests of this program have zygotes, too.
    let before: HashSet<i32> = zygotes().into_iter().collect();
    let bench = bench_with(LaunchMode::Zygote).await;
    let first = bench.function("let n = 0; export default () => ++n;");
    assert_eq!(bench.get(&first, "/").await.text(), "1");
    bench.is_well().await;
    for zygote in zygotes().into_iter().filter(|zygote| !before.contains(zygote)) {
        kill(zygote);
    }
    assert_eq!(bench.get(&first, "/").await.text(), "2", "its worker lives on");
    for _ in 0..4 {
        let next = bench.function("export default () => 'new';");
        assert_eq!(bench.get(&next, "/").await.text(), "new");
    }
    bench.is_well().await;
}

/// What a process holds open, without numbers.
fn held(pid: &str) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One that is gone meanwhile was open for a moment.
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let mut kinds: Vec<String> = targets
        .map(|target| {
            let name = target.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
            name.chars().filter(char::is_ascii_alphabetic).collect()
        })
        .collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_holds_nothing_open_but_its_own() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        let pid = bench.get(&bench.function("export default () => process.pid;"), "/").await.text();
        // Its event loop, its output, and sockets: the supervisor's twice, those of signals three times.
        // One that is not forked keeps its output once more, for programs that it may not start.
        let (pipes, sockets) = (if mode == LaunchMode::Zygote { 2 } else { 4 }, 5);
        let mut expected =
            vec!["anoninodeeventfd", "anoninodeeventpoll", "anoninodeeventpoll", "null"];
        expected.extend(["pipe"].repeat(pipes));
        expected.extend(["socket"].repeat(sockets));
        expected.push("statm");
        // It reads its bundle once more, to make a code cache.
        wait_until("nothing else is open", || held(&pid) == expected).await;
    }
}

/// A number the kernel tells of a process, without its unit.
fn told(pid: impl Display, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.split_whitespace().next()).map_or(0, |n| n.parse().unwrap())
}

/// How many filters of system calls are set for a process.
fn filters(pid: impl Display) -> u64 {
    told(pid, "Seccomp_filters")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heap_of_a_fork_lies_in_one_place() {
    for mode in MODES {
        let bench = bench_with(mode).await;
        let pid = bench.get(&bench.function("export default () => process.pid;"), "/").await.text();
        // One table has 512 pages; as V8 spreads its heap, there is one for 20.
        let tables_kb = told(&pid, "VmPTE");
        assert_eq!((1..500).contains(&tables_kb), mode == LaunchMode::Zygote, "{tables_kb} KB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_sets_the_first_filter_for_its_workers() {
    let outside = filters("self");
    for mode in MODES {
        let bench = bench_with(mode).await;
        let pid = bench.get(&bench.function("export default () => process.pid;"), "/").await.text();
        assert_eq!(filters(&pid), outside + 2, "{mode:?}");
        if mode == LaunchMode::Zygote {
            assert!(zygotes().into_iter().any(|zygote| filters(zygote) == outside + 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_die_with_their_sandbox() {
    let bench = bench_with(LaunchMode::Zygote).await;
    let pid = bench.get(&bench.function("export default () => process.pid;"), "/").await.text();
    drop(bench);
    wait_until("the worker is gone", || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
}

#[test]
fn a_runtime_may_end_while_calls_wait_for_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("worker");
    // It starts and is never ready.
    fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bench = runtime.block_on(async {
        let launch = LaunchMode::Process;
        let options = SandboxOptions { worker_program: program, launch, ..options() };
        let bench = Bench::start_unready(options);
        let target = bench.function("export default 1");
        for _ in 0..20 {
            let (bench, target) = (bench.clone(), target.clone());
            tokio::spawn(async move { bench.try_get(&target, "/").await });
        }
        wait_until("they wait", || {
            let now = bench.sandbox.metrics();
            now.queue_length == 20 && now.workers_loading > 0
        })
        .await;
        bench
    });
    drop(runtime);
    assert_eq!(bench.sandbox.metrics().queue_length, 0);
}
