//! Which workers end by themselves, and which do not.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::time::{Duration, Instant};

use cloudserve_protocol::limits::Limits;
use cloudserve_sandbox::SandboxOptions;

use support::{Bench, options, wait_until};

const HELLO: &str = "export default async (event) => `hello ${event.query.name ?? 'world'}`;";

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_worn_workers_end() {
    let bench = Bench::start_with(SandboxOptions {
        idle_evict_ms: 500,
        recycle_after_calls: 3,
        ..options()
    })
    .await;
    let hello = bench.function(HELLO);
    let cold: Vec<_> = {
        let mut cold = Vec::new();
        for _ in 0..7 {
            cold.push(bench.get(&hello, "/").await.cold);
        }
        cold
    };
    assert_eq!(cold, [true, false, false, true, false, false, true]);
    assert_eq!(bench.sandbox.metrics().workers_idle, 1);
    wait_until("it is evicted", || bench.sandbox.metrics().workers_idle == 0).await;
    let deaths = bench.sandbox.metrics().deaths;
    assert!(deaths.contains(&("recycled", 2)), "{deaths:?}");
    wait_until("it is buried", || bench.sandbox.metrics().deaths.contains(&("idle", 1))).await;
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_workers_and_those_that_hold_too_much_end() {
    let bench = Bench::start_with(SandboxOptions { recycle_after_ms: 1, ..options() }).await;
    let hello = bench.function(HELLO);
    for _ in 0..3 {
        assert!(bench.get(&hello, "/").await.cold, "the one before was too old");
    }
    wait_until("three are recycled", || bench.sandbox.metrics().deaths.contains(&("recycled", 3)))
        .await;
    bench.is_well().await;

    let bench = Bench::start_with(SandboxOptions { recycle_beyond_mb: 0, ..options() }).await;
    let code = "
        const kept = [];
        export default () => { kept.push(Buffer.alloc(50 << 20, 1)); return 'kept'; };
    ";
    let limits = Limits { memory_mb: 64, ..Limits::default() };
    let hoarder = bench.function_with(code, limits);
    assert_eq!(bench.get(&hoarder, "/").await.text(), "kept");
    wait_until("it is recycled", || bench.sandbox.metrics().deaths.contains(&("recycled", 1)))
        .await;
    assert!(bench.get(&hoarder, "/").await.cold);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_busy_without_a_call_end() {
    let bench = Bench::start_with(SandboxOptions { idle_cpu_ms: 200, ..options() }).await;
    let short_turns = "
        export default () => {
          setInterval(() => { const end = Date.now() + 5; while (Date.now() < end); }, 1);
          return 'busy';
        };
    ";
    let other_threads = "
        import { pbkdf2 } from 'node:crypto';
        export default () => {
          for (let i = 0; i < 2; i++) pbkdf2('a', 'b', 2_000_000_000, 64, 'sha512', () => {});
          return 'busy';
        };
    ";
    let calm = bench.function(HELLO);
    assert!(bench.get(&calm, "/").await.cold);
    for code in [short_turns, other_threads] {
        let busy = bench.function(code);
        assert_eq!(bench.get(&busy, "/").await.text(), "busy");
        assert_eq!(bench.sandbox.metrics().workers_idle, 2);
        wait_until("it is ended", || bench.sandbox.metrics().workers_idle == 1).await;
        assert!(bench.get(&busy, "/").await.cold, "the next call has a worker of its own");
        wait_until("that is ended, too", || bench.sandbox.metrics().workers_idle == 1).await;
    }
    let deaths = bench.sandbox.metrics().deaths;
    assert!(deaths.iter().any(|(cause, n)| *cause == "cpu_limit" && *n >= 3), "{deaths:?}");
    assert!(!bench.get(&calm, "/").await.cold, "one that rests is left alone");

    // Nor is one spared that is called again and again.
    let called = bench.function(
        "let begun;
         export default () => {
           begun ??= setInterval(() => { const end = Date.now() + 5; while (Date.now() < end); }, 1);
           return 'busy';
         };",
    );
    assert!(bench.get(&called, "/").await.cold);
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if bench.get(&called, "/").await.cold {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "it goes on");
    }
    wait_until("five are buried", || {
        bench.sandbox.metrics().deaths.iter().any(|(cause, n)| *cause == "cpu_limit" && *n >= 5)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_does_between_calls_ends_no_worker() {
    // Short calls, one at a time: each of them is looked for.
    let bench = Bench::start_with(SandboxOptions { idle_cpu_ms: 200, ..options() }).await;
    let hello = bench.function(HELLO);
    assert!(bench.get(&hello, "/").await.cold);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(!bench.get(&hello, "/").await.cold, "after {:?}", begun.elapsed());
    }
    assert!(bench.sandbox.metrics().deaths.contains(&("cpu_limit", 0)));
}
