//! Answers that are larger than what a socket takes at once.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::call::{Body, Invoker, Target};
use cloudserve_protocol::fault::FaultClass;
use cloudserve_protocol::limits::Limits;
use cloudserve_sandbox::SandboxOptions;
use futures::future::join_all;
use tokio::time::timeout;

use support::{Bench, options, user};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_as_large_as_its_limit() {
    let bench = Bench::start().await;
    let response_body_bytes = Limits::MAX.response_body_bytes;
    let limits =
        Limits { timeout_ms: 20_000, memory_mb: 512, response_body_bytes, ..Limits::default() };
    let code = "export default () => new Uint8Array(70 << 20).fill(7);";
    let called = bench.get(&bench.function_with(code, limits), "/").await;
    assert_eq!(called.body.len(), 70 << 20);
    assert!(called.body.iter().all(|byte| *byte == 7));
    bench.is_well().await;
}

#[tokio::test]
async fn an_answer_has_left_before_the_next_call_begins() {
    // Calls wait in a worker, whatever they are expected to take.
    let (worker_wait_us, worker_wake_us, scale_after_ms) = (1_000_000, 1_000_000, 60_000);
    let bench = Bench::start_with(SandboxOptions {
        worker_wait_us,
        worker_wake_us,
        scale_after_ms,
        ..options()
    })
    .await;
    let code = "export default (e) => e.query.abort ? process.abort() : 'x'.repeat(4 << 20);";
    let large = bench.function_with(code, Limits { timeout_ms: 20_000, ..Limits::default() });
    // Their length is known after a few.
    for _ in 0..10 {
        bench.get(&large, "/").await;
    }
    for round in 0..8 {
        let abort = async {
            // Nobody reads meanwhile: the worker has most of the answer left to send.
            std::thread::sleep(Duration::from_millis(30));
            let outcome = bench.try_get(&large, "/?abort=1").await.unwrap_err();
            assert_eq!(outcome.fault.unwrap().class, FaultClass::Crashed, "{round}");
        };
        let others = join_all((0..5).map(|_| bench.get(&large, "/")));
        let (first, (), others) = tokio::join!(bench.get(&large, "/"), abort, others);
        assert!(others.iter().chain([&first]).all(|called| called.body.len() == 4 << 20));
    }
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_of_an_account_wait_until_those_before_them_are_sent_on() {
    let whole_answer_bytes = 10 << 20;
    let bench = Bench::start_with(SandboxOptions { whole_answer_bytes, ..options() }).await;
    let code = "export default (e) => new Uint8Array(Number(e.query.mb) << 20).fill(7);";
    let response_body_bytes = 40 << 20;
    let limits = Limits { timeout_ms: 20_000, response_body_bytes, ..Limits::default() };
    let owner = user();
    let function = bench.function_of(code, limits, owner);
    let hasty = bench.function_of(code, Limits { timeout_ms: 1_000, ..limits }, owner);
    let other = bench.function_of(code, limits, user());
    let answer = async |of: &Arc<Target>, path: &str| {
        let (call, _told) = Bench::invocation(of, path, Body::Empty);
        match bench.sandbox.invoke(call).await.unwrap().body {
            Body::Full(bytes) => bytes,
            body => panic!("{body:?} is not whole"),
        }
    };
    // Whatever its size, the one that goes beyond the bound is taken in.
    let unread = [answer(&function, "/?mb=4").await, answer(&function, "/?mb=20").await];
    let mut waiting = pin!(answer(&function, "/?mb=8"));
    assert!(timeout(Duration::from_millis(500), &mut waiting).await.is_err());
    assert_eq!(answer(&other, "/?mb=20").await.len(), 20 << 20, "others have room of their own");
    // Its function has answered in time, and is neither to blame nor to pay for the wait.
    let late = bench.try_get(&hasty, "/?mb=8").await.unwrap_err();
    assert!(late.started && late.timings.exec_us < 900_000, "{late:?}");
    assert_eq!(late.fault.unwrap().class, FaultClass::ConcurrencyLimit);
    assert!(unread.iter().flatten().all(|byte| *byte == 7));
    drop(unread);
    let answered = timeout(Duration::from_secs(10), waiting).await.unwrap();
    assert_eq!(answered.len(), 8 << 20);
    drop(answered);
    bench.is_well().await;
    let deaths = bench.sandbox.metrics().deaths;
    assert!(deaths.contains(&("no_room", 1)) && deaths.contains(&("timeout", 0)), "{deaths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_computed_while_an_answer_waits_is_paid() {
    let bench = Bench::start_with(SandboxOptions { whole_answer_bytes: 1, ..options() }).await;
    let code = "
        const compute = () => {
            const until = performance.now() + 20;
            while (performance.now() < until);
        };
        export default (e) => {
            if (e.query.goes === 'on') setInterval(compute, 1);
            return new Uint8Array(4 << 20);
        };";
    let owner = user();
    let limits = Limits { timeout_ms: 3_000, ..Limits::default() };
    let [function, other] = [(); 2].map(|()| bench.function_of(code, limits, owner));
    let (call, _told) = Bench::invocation(&other, "/", Body::Empty);
    let unread = bench.sandbox.invoke(call).await.unwrap();
    let late = bench.try_get(&function, "/?goes=on").await.unwrap_err();
    assert!(late.timings.exec_us > 300_000, "{late:?}");
    assert_eq!(late.fault.unwrap().class, FaultClass::ConcurrencyLimit);
    drop(unread);
    bench.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_waits_ends_with_its_worker() {
    let bench = Bench::start_with(SandboxOptions { whole_answer_bytes: 1, ..options() }).await;
    let code = "export default (e) => e.query.large ? 'x'.repeat(4 << 20) : process.pid;";
    let limits = Limits { timeout_ms: 60_000, ..Limits::default() };
    let owner = user();
    let [function, other] = [(); 2].map(|()| bench.function_of(code, limits, owner));
    let pid = bench.get(&function, "/").await.text().parse().unwrap();
    let (call, _told) = Bench::invocation(&other, "/?large=1", Body::Empty);
    let unread = bench.sandbox.invoke(call).await.unwrap();
    let killed = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        support::kill(pid);
    };
    let both = async { tokio::join!(bench.try_get(&function, "/?large=1"), killed) };
    let (ended, ()) = timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(ended.unwrap_err().fault.unwrap().class, FaultClass::Crashed);
    drop(unread);
    bench.is_well().await;
}
