//! The supervisor with real worker processes.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudserve_protocol::call::{Body, HandlerKind, Invoker, LogLevel, Piece, VersionLoader};
use cloudserve_protocol::fault::FaultClass;
use cloudserve_protocol::limits::{Limits, PlatformLimits};
use cloudserve_sandbox::SandboxOptions;
use futures::{StreamExt, stream};

use support::{Bench, options};

const HELLO: &str = "export default async (event) => `hello ${event.query.name ?? 'world'}`;";

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_called_cold_then_warm() {
    let bench = Bench::start().await;
    let hello = bench.function(HELLO);
    let cold = bench.get(&hello, "/?name=a").await;
    assert_eq!((cold.status, cold.text().as_str()), (200, "hello a"));
    assert!(cold.cold && cold.outcome.cold && cold.timings.boot_us > 0, "{cold:?}");
    let warm = bench.get(&hello, "/").await;
    assert_eq!(warm.text(), "hello world");
    assert!(!warm.cold, "{warm:?}");
    assert_eq!(warm.timings.boot_us, 0);
    assert!(warm.outcome.started && warm.outcome.cpu_us > 0 && warm.outcome.memory_bytes > 0);
    assert_eq!(bench.sandbox.metrics().cold_starts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_loaded_before_it_is_called() {
    let bench = Bench::start().await;
    let noisy = bench
        .function("console.log('loading'); export default { fetch: () => new Response('x') };");
    let report = bench.sandbox.load(noisy.clone()).await.unwrap();
    assert_eq!(report.handler_kind, HandlerKind::Fetch);
    assert!(report.load_us > 0);
    assert_eq!(report.logs.len(), 1, "{report:?}");
    let call = bench.get(&noisy, "/").await;
    assert!(!call.cold && call.outcome.logs.is_empty(), "{call:?}");

    for (code, words) in [
        ("export const x = ;", "SyntaxError"),
        ("throw new Error('at load');", "at load"),
        ("process.exit(3);", "exit code 3"),
        ("process.abort();", "SIGABRT"),
        ("export {};", "handler"),
    ] {
        let fault = bench.sandbox.load(bench.function(code)).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::StartupError, "{code}: {fault:?}");
        let all = format!("{} {:?}", fault.message, fault.detail);
        assert!(all.contains(words), "{code}: {all}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_native_code_takes_counts_to_the_limit() {
    // The kernel's bound is below that of whoever watches, so it is the one that ends the worker,
    // on platforms that delegate control groups.
    let platform = PlatformLimits { tmp_bytes: 1 << 20, ..PlatformLimits::default() };
    let options = SandboxOptions { kernel_memory_beyond_mb: 32, platform, ..options() };
    let bench = Bench::start_with(options).await;
    let limits = Limits { memory_mb: 64, timeout_ms: 30_000, ..Limits::default() };
    let hungry = bench.function_with(
        "import { scryptSync } from 'node:crypto';
         export default () => scryptSync('a', 'b', 64, { N: 2 ** 20, maxmem: 2 ** 31 }).length;",
        limits,
    );
    let outcome = bench.try_get(&hungry, "/").await.unwrap_err();
    let fault = outcome.fault.unwrap();
    assert_eq!(fault.class, FaultClass::MemoryLimit, "{fault:?}");
    assert!(fault.message.contains("64 MB"), "{fault:?}");
    if bench.sandbox.readiness().jail.control_groups {
        let deaths = bench.sandbox.metrics().deaths;
        assert!(deaths.contains(&("oom", 1)), "{deaths:?}");
    } else {
        // Past the test harness, which keeps what tests print that do not fail.
        let what = "*** The kernel's bound of memory was NOT tested: no control groups. ***";
        let _ = writeln!(std::io::stderr(), "{what}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_has_its_class_and_harms_no_other_function() {
    let bench = Bench::start().await;
    let hello = bench.function(HELLO);
    let limits = |class| Limits {
        timeout_ms: if class == FaultClass::Timeout { 1_000 } else { 5_000 },
        memory_mb: 64,
        ..Limits::default()
    };
    for (body, class, words) in [
        ("while (true);", FaultClass::Timeout, "1000 ms"),
        ("await new Promise(() => {});", FaultClass::Timeout, "1000 ms"),
        ("throw new Error('thrown');", FaultClass::HandlerError, "thrown"),
        ("await Promise.reject(new TypeError('rejected'));", FaultClass::HandlerError, "rejected"),
        ("process.exit(7);", FaultClass::Crashed, "exit code 7"),
        ("process.abort();", FaultClass::Crashed, "SIGABRT"),
        ("const a = []; for (;;) a.push({ a: [1, 2, 3] });", FaultClass::MemoryLimit, "64 MB"),
        (
            "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1));",
            FaultClass::MemoryLimit,
            "64 MB",
        ),
        ("return 'x'.repeat(7 << 20);", FaultClass::ResponseTooLarge, "larger"),
        (
            "return { statusCode: 200, headers: { x: 'y'.repeat(2 << 20) } };",
            FaultClass::ResponseTooLarge,
            "headers",
        ),
    ] {
        let code = format!("export default async () => {{ {body} }};");
        let bad = bench.function_with(&code, limits(class));
        let begun = Instant::now();
        let outcome = bench.try_get(&bad, "/").await.unwrap_err();
        let fault = outcome.fault.clone().unwrap();
        assert_eq!(fault.class, class, "{body}: {outcome:#?}");
        assert!(fault.message.contains(words), "{body}: {fault:?}");
        assert!(outcome.started && outcome.memory_bytes > 0, "{body}: {outcome:#?}");
        let longest = Duration::from_millis(u64::from(bad.limits.timeout_ms) + 1_000);
        assert!(begun.elapsed() < longest, "{body}: {:?}", begun.elapsed());
        let last = outcome.logs.last().unwrap();
        assert_eq!(last.level, LogLevel::Error, "{body}: {:?}", outcome.logs);
        assert_eq!(bench.get(&hello, "/").await.text(), "hello world", "after {body}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_from_outside_fails_its_call_only() {
    let bench = Bench::start().await;
    let slow = bench.function(
        "const begun = new Uint8Array(1);
         const hang = new ReadableStream({ start: (stream) => stream.enqueue(begun) });
         export default ({ query }) => query.hang ? new Response(hang) : process.pid;",
    );
    let pid_of = |call: support::Called| call.text().parse().unwrap();
    let pid = pid_of(bench.get(&slow, "/").await);
    let (call, outcome) = Bench::invocation(&slow, "/?hang=1", Body::Empty);
    let reply = bench.sandbox.invoke(call).await.unwrap();
    support::kill(pid);
    let fault = outcome.await.unwrap().fault.unwrap();
    assert_eq!(fault.class, FaultClass::Crashed);
    assert!(fault.message.contains("SIGKILL"), "{fault:?}");
    assert_eq!(reply.body.collect().await.unwrap_err(), fault);

    // One that dies while it is idle fails no call.
    for _ in 0..5 {
        support::kill(pid_of(bench.get(&slow, "/").await));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bench.get(&slow, "/").await.cold);
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_and_kind_come_back_whole() {
    let bench = Bench::start().await;
    let limits = Limits { timeout_ms: 20_000, ..Limits::default() };
    let echo = bench.function_with(
        "export default { async fetch(r) {
           if (new URL(r.url).pathname === '/stream') return new Response(r.body);
           return new Response(await r.arrayBuffer());
         } };",
        limits,
    );
    for size in [0, 1, 1_000, 65_536, 262_144, 262_145, 1_000_000, 6 * 1024 * 1024] {
        let sent: Bytes = (0..size).map(|i: usize| (i * 7 + i / 256).to_le_bytes()[0]).collect();
        for path in ["/", "/stream"] {
            let got = bench.call(&echo, path, Body::Full(sent.clone())).await.unwrap();
            assert_eq!(got.body.len(), size, "{path}");
            assert!(got.body == sent, "{path} {size}");
            let pieces: Vec<_> =
                sent.chunks(10_007).map(|c| Ok(Bytes::copy_from_slice(c).into())).collect();
            let body = Body::Stream(Box::pin(stream::iter(pieces)));
            let got = bench.call(&echo, path, body).await.unwrap();
            assert!(got.body == sent, "streamed {path} {size}");
        }
    }
    let too_large = Body::Full(Bytes::from(vec![0; 6 * 1024 * 1024 + 1]));
    let outcome = bench.call(&echo, "/", too_large).await.unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::PayloadTooLarge);
    bench.is_well().await;
}

const ENDLESS: &str = "
export default { fetch() {
  const piece = new Uint8Array(16 * 1024);
  return new Response(new ReadableStream({ pull(c) { c.enqueue(piece); } }));
} };";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_bounded_by_its_limit_its_consumer_and_its_deadline() {
    let bench = Bench::start().await;
    let limits = Limits { streamed_response_bytes: 3 << 20, ..Limits::default() };
    let outcome = bench.try_get(&bench.function_with(ENDLESS, limits), "/").await.unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::ResponseTooLarge);

    // Nobody reads: the deadline ends it, and what was produced meanwhile is bounded by credit.
    let limits = Limits { timeout_ms: 1_000, ..Limits::default() };
    let endless = bench.function_with(ENDLESS, limits);
    let (call, outcome) = Bench::invocation(&endless, "/", Body::Empty);
    let reply = bench.sandbox.invoke(call).await.unwrap();
    let Body::Stream(mut body) = reply.body else { panic!("it streams") };
    let outcome = outcome.await.unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Timeout);
    let mut got = 0;
    let fault = loop {
        match body.next().await.unwrap() {
            Ok(Piece::Data(bytes)) => got += bytes.len(),
            Ok(Piece::Trailers(_)) => panic!("nothing comes after it"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.class, FaultClass::Timeout);
    assert!(got <= 256 * 1024, "{got}");
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_ends_the_call() {
    let bench = Bench::start().await;
    let endless = bench.function(ENDLESS);
    let (call, outcome) = Bench::invocation(&endless, "/", Body::Empty);
    let reply = bench.sandbox.invoke(call).await.unwrap();
    drop(reply.body);
    let outcome = tokio::time::timeout(Duration::from_secs(2), outcome).await.unwrap().unwrap();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::Cancelled);

    // Before the answer has begun, the future is dropped.
    let slow = bench.function(
        "export default async () => {
           console.log('begun');
           await new Promise((done) => setTimeout(done, 60_000));
         };",
    );
    let (call, outcome) = Bench::invocation(&slow, "/", Body::Empty);
    let call = bench.sandbox.invoke(call);
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err());
    let outcome = tokio::time::timeout(Duration::from_secs(2), outcome).await.unwrap().unwrap();
    assert!(outcome.started && outcome.fault.unwrap().class == FaultClass::Cancelled);
    assert_eq!(outcome.logs[0].message, "begun");

    let stuck = bench.function("export default () => { while (true); };");
    let call = bench.sandbox.invoke(Bench::invocation(&stuck, "/", Body::Empty).0);
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err());
    support::wait_until("the worker is gone", || bench.sandbox.metrics().workers_busy == 0).await;
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_collected_in_order_and_bounded() {
    let bench = Bench::start().await;
    let chatty = bench.function(
        "console.log('at load');
         export default () => {
           console.debug('one'); console.info('two'); console.warn('three'); console.error('four');
           process.stdout.write('five\\nsix'); process.stderr.write('seven\\n');
           return 'ok';
         };",
    );
    let call = bench.get(&chatty, "/").await;
    let lines: Vec<_> = call.outcome.logs.iter().map(|l| (l.level, l.message.as_str())).collect();
    for expected in [
        (LogLevel::Info, "at load"),
        (LogLevel::Debug, "one"),
        (LogLevel::Info, "two"),
        (LogLevel::Warn, "three"),
        (LogLevel::Error, "four"),
        (LogLevel::Info, "five"),
        (LogLevel::Info, "six"),
        (LogLevel::Error, "seven"),
    ] {
        assert!(lines.contains(&expected), "{expected:?} in {lines:?}");
    }
    assert_eq!(lines.len(), 8, "{lines:?}");
    assert_eq!(bench.get(&chatty, "/").await.outcome.logs.len(), 7);

    let shouting = bench.function(
        "const line = 'x'.repeat(1023);
         export default ({ query }) => {
           const out = query.raw ? (l) => process.stdout.write(l + '\\n') : console.log;
           for (let i = 0; i < 50 * 1024; i += 1) out(line);
           return 'hoarse';
         };",
    );
    for path in ["/", "/?raw=1"] {
        let call = bench.get(&shouting, path).await;
        assert_eq!(call.text(), "hoarse", "{path}");
        assert!(call.outcome.logs_truncated, "{path}");
        let kept: usize = call.outcome.logs.iter().map(|line| line.message.len()).sum();
        assert!(kept > 200 * 1024 && kept <= 257 * 1024, "{path}: {kept}");
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_bounded_and_the_rest_waits_its_turn() {
    let platform = PlatformLimits { queue_length: 4, ..PlatformLimits::default() };
    let bench = Bench::start_with(SandboxOptions { platform, ..options() }).await;
    let limits = Limits { concurrency: 2, ..Limits::default() };
    let slow = bench.function_with(
        "export default () => new Promise(r => setTimeout(r, 300, 'done'));",
        limits,
    );
    bench.get(&slow, "/").await;
    let calls = (0..8).map(|_| bench.try_get(&slow, "/"));
    let begun = Instant::now();
    let results = futures::future::join_all(calls).await;
    let ok = results.iter().filter(|r| r.is_ok()).count();
    let refused: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    // One idle worker takes a call, four wait, three are one too many.
    assert_eq!((ok, refused.len()), (5, 3));
    for outcome in refused {
        assert!(!outcome.started);
        let fault = outcome.fault.as_ref().unwrap();
        assert_eq!((fault.class, fault.limit), (FaultClass::ConcurrencyLimit, Some(2)));
    }
    assert!(begun.elapsed() >= Duration::from_millis(880), "{:?}", begun.elapsed());
    assert_eq!((bench.sandbox.metrics().cold_starts, bench.sandbox.metrics().refused), (2, 3));
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_bounded_across_functions() {
    let platform = PlatformLimits { user_concurrency: 2, ..PlatformLimits::default() };
    let bench = Bench::start_with(SandboxOptions { platform, ..options() }).await;
    let code = "export default () => new Promise(r => setTimeout(r, 1_000, 'done'));";
    let owner = support::user();
    let functions: Vec<_> =
        (0..3).map(|_| bench.function_of(code, Limits::default(), owner)).collect();
    for function in &functions {
        bench.sandbox.load(function.clone()).await.unwrap();
    }
    let begun = Instant::now();
    let mine = async {
        futures::future::join_all(functions.iter().map(|f| bench.get(f, "/"))).await;
        begun.elapsed()
    };
    let other = bench.function(HELLO);
    let (mine_took, other_took) = tokio::join!(mine, async {
        bench.get(&other, "/").await;
        begun.elapsed()
    });
    assert!(mine_took >= Duration::from_millis(1_990), "{mine_took:?}");
    assert!(other_took < mine_took, "{other_took:?}");
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_with_many_calls_waiting_holds_up_no_other_of_its_account() {
    let platform = PlatformLimits { user_concurrency: 1, ..PlatformLimits::default() };
    let bench = Bench::start_with(SandboxOptions { platform, ..options() }).await;
    let code = "export default () => new Promise(r => setTimeout(r, 100, 'done'));";
    let owner = support::user();
    let [busy, other] = [(); 2].map(|()| bench.function_of(code, Limits::default(), owner));
    for function in [&busy, &other] {
        bench.sandbox.load(function.clone()).await.unwrap();
    }
    let ended = AtomicUsize::new(0);
    let many = futures::future::join_all((0..10).map(|_| {
        let (bench, busy, ended) = (&bench, &busy, &ended);
        async move {
            bench.get(busy, "/").await;
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let one = async {
        support::wait_until("they wait", || bench.sandbox.metrics().queue_length >= 5).await;
        bench.get(&other, "/").await;
        ended.load(Ordering::Relaxed)
    };
    let (_, before) = tokio::join!(many, one);
    assert!(before < 10, "it waited for all of them");
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_functions_at_once_are_all_answered() {
    let bench = Bench::start().await;
    let limits = Limits { timeout_ms: 30_000, ..Limits::default() };
    let functions: Vec<_> = (0..100).map(|_| bench.function_with(HELLO, limits)).collect();
    let begun = Instant::now();
    let calls = functions.iter().map(|f| bench.get(f, "/"));
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|call| call.text() == "hello world"));
    eprintln!("100 functions at once: {:?}", begun.elapsed());
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_when_there_are_as_many_workers_as_there_may_be() {
    let bench =
        Bench::start_with(SandboxOptions { max_workers: 6, pool_size: 2, ..options() }).await;
    let functions: Vec<_> = (0..12).map(|_| bench.function(HELLO)).collect();
    for round in 0..2 {
        let calls = functions.iter().map(|f| bench.get(f, "/"));
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(|call| call.text() == "hello world"), "{round}");
        assert!(bench.sandbox.metrics().processes <= 6);
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redeploys_under_load_lose_no_call() {
    let bench = Bench::start().await;
    let first = bench.function("export default () => 'v1';");
    bench.sandbox.load(first.clone()).await.unwrap();
    let current = std::sync::Arc::new(parking_lot::Mutex::new(first.clone()));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (bench, current) = (bench.clone(), current.clone());
            tokio::spawn(async move {
                for _ in 0..250 {
                    let target = current.lock().clone();
                    let version = target.version;
                    assert_eq!(bench.get(&target, "/").await.text(), format!("v{version}"));
                }
            })
        })
        .collect();
    for version in 2..=5 {
        let next =
            bench.next_version(&first, version, &format!("export default () => 'v{version}';"));
        bench.sandbox.load(next.clone()).await.unwrap();
        *current.lock() = next;
        bench.sandbox.retire_below(first.function_id, version);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    // An old version is still callable.
    assert_eq!(bench.get(&first, "/").await.text(), "v1");
    bench.sandbox.retire_below(first.function_id, u32::MAX);
    support::wait_until("no worker is left", || bench.sandbox.metrics().workers_idle == 0).await;
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_lets_calls_finish_and_ends_everything() {
    let bench = Bench::start().await;
    let quick =
        bench.function("export default () => new Promise(r => setTimeout(r, 300, 'done'));");
    let stuck = bench.function("export default () => new Promise(() => {});");
    let run = |target| {
        let bench = bench.clone();
        tokio::spawn(async move { bench.try_get(&target, "/").await })
    };
    let (quick, stuck) = (run(quick.clone()), run(stuck.clone()));
    support::wait_until("both run", || bench.sandbox.metrics().workers_busy == 2).await;
    bench.sandbox.drain(Instant::now() + Duration::from_millis(1_000)).await;
    assert_eq!(quick.await.unwrap().unwrap().text(), "done");
    let outcome = stuck.await.unwrap().unwrap_err();
    assert_eq!(outcome.fault.unwrap().class, FaultClass::SandboxUnavailable);
    assert_eq!(bench.sandbox.metrics().processes, 0);
    assert!(!bench.sandbox.readiness().is_ready);
    let late = bench.try_get(&bench.function(HELLO), "/").await.unwrap_err();
    assert!(!late.started);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_program_that_does_not_work_is_reported_and_keeps_nobody_waiting() {
    for (program, words) in
        [("/does/not/exist", "cannot be started"), ("/bin/false", "exit status: 1")]
    {
        let bench = Bench::start_unready(SandboxOptions {
            worker_program: program.into(),
            start_backoff_max_ms: 200,
            ..options()
        });
        let begun = Instant::now();
        let outcome = bench.try_get(&bench.function(HELLO), "/").await.unwrap_err();
        assert_eq!(outcome.fault.unwrap().class, FaultClass::SandboxUnavailable);
        assert!(!outcome.started);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let readiness = bench.sandbox.readiness();
        assert!(!readiness.is_ready);
        let failure = readiness.last_failure.unwrap();
        assert!(failure.contains(words), "{failure}");
    }
}
