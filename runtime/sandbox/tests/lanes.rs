//! Calls that wait in a busy worker: short ones do, and none of them pays for the one before it.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::call::{Body, Invoker, Target};
use cloudserve_protocol::fault::FaultClass;
use cloudserve_protocol::limits::Limits;
use cloudserve_sandbox::SandboxOptions;
use futures::future::join_all;

use support::{Bench, Called, options, wait_until};

/// Short, unless it is told otherwise.
const CALLS: &str = "
    let calls = 0;
    export default async ({ query }) => {
      calls += 1;
      if (query.way === 'raw') process.stdout.write(`call ${query.n}\\n`);
      else console.log(`call ${query.n}`);
      switch (query.way) {
        case 'spin': for (const end = Date.now() + 3_000; Date.now() < end;); break;
        case 'sleep': await new Promise((resolve) => setTimeout(resolve, 3_000)); break;
        case 'exit': process.exit(9);
        case 'throw': throw new Error(`thrown by ${query.n}`);
        case 'leave': setTimeout(() => {
          console.log('left');
          for (const end = Date.now() + 300; Date.now() < end;);
          process.exit(9);
        }, 5); break;
        case 'stream': {
          let left = 200;
          const pull = (controller) => {
            if (left === 0) return controller.close();
            left -= 1;
            controller.enqueue(new Uint8Array(1024));
          };
          return new Response(new ReadableStream({ pull }));
        }
      }
      return `${query.n} ${process.pid} ${calls}`;
    };";

/// Calls wait in workers whatever they are expected to take.
fn waiting(scale_after_ms: u32) -> SandboxOptions {
    SandboxOptions {
        worker_wait_us: 1_000_000,
        worker_wake_us: 1_000_000,
        scale_after_ms,
        ..options()
    }
}

async fn start() -> (Bench, Arc<Target>) {
    start_with(waiting(options().scale_after_ms), 3).await
}

async fn start_with(options: SandboxOptions, concurrency: u32) -> (Bench, Arc<Target>) {
    let bench = Bench::start_with(options).await;
    let function = bench.function_with(CALLS, Limits { concurrency, ..Limits::default() });
    // Their length is known after a few.
    for n in 0..20 {
        bench.get(&function, &format!("/?n={n}")).await;
    }
    (bench, function)
}

async fn short(bench: &Bench, function: &Arc<Target>, n: usize) -> Called {
    bench.try_get(function, &format!("/?n={n}")).await.unwrap_or_else(|e| panic!("{n}: {e:#?}"))
}

#[tokio::test]
async fn each_has_its_own_answer_and_log() {
    // However slow the machine is, none goes to another worker.
    let (bench, function) = start_with(waiting(60_000), 3).await;
    for round in 0..10 {
        let calls = (0..200).map(|n| short(&bench, &function, round * 1_000 + n));
        let called = join_all(calls).await;
        for (n, call) in called.iter().enumerate() {
            let n = round * 1_000 + n;
            assert!(call.text().starts_with(&format!("{n} ")), "{n}: {call:?}");
            let lines: Vec<_> = call.outcome.logs.iter().map(|line| &line.message).collect();
            assert_eq!(lines, [&format!("call {n}")], "{call:#?}");
            assert!(call.outcome.fault.is_none() && call.outcome.started && !call.cold);
        }
    }
    assert_eq!(bench.sandbox.metrics().cold_starts, 1, "one worker was enough");
    bench.is_well().await;
}

#[tokio::test]
async fn what_is_written_to_standard_output_is_the_calls_that_wrote_it() {
    let (bench, function) = start_with(waiting(60_000), 3).await;
    bench.get(&function, "/?n=first&way=raw").await;
    for round in 0..10 {
        let paths: Vec<_> = (0..100).map(|n| format!("/?n={}&way=raw", round * 100 + n)).collect();
        let called = join_all(paths.iter().map(|path| bench.get(&function, path))).await;
        for (n, call) in called.iter().enumerate() {
            let lines: Vec<_> = call.outcome.logs.iter().map(|line| &line.message).collect();
            assert_eq!(lines, [&format!("call {}", round * 100 + n)], "{call:#?}");
        }
    }
    bench.is_well().await;
}

#[tokio::test]
async fn they_go_elsewhere_when_the_one_before_does_not_end() {
    for way in ["spin", "sleep"] {
        let (bench, function) = start().await;
        let path = format!("/?n=long&way={way}");
        let slow = bench.try_get(&function, &path);
        let quick = async {
            // The slow one is under way: the next ones find its worker busy.
            wait_until("it runs", || bench.sandbox.metrics().workers_busy == 1).await;
            join_all((0..10).map(|n| short(&bench, &function, n))).await
        };
        tokio::pin!(slow);
        tokio::select! {
            slow = &mut slow => panic!("{way}: the short calls waited for the long one: {slow:?}"),
            quick = quick => assert_eq!(quick.len(), 10),
        }
        assert!(slow.await.unwrap().text().starts_with("long "));
        bench.is_well().await;
    }
}

#[tokio::test]
async fn a_call_that_lasts_holds_up_none_of_those_that_come_later() {
    let (bench, function) = start_with(waiting(200), 3).await;
    let slow = bench.try_get(&function, "/?n=long&way=sleep");
    let quick = async {
        wait_until("it runs", || bench.sandbox.metrics().workers_busy == 1).await;
        // The first of them waits, and is taken back. Then it is known.
        for n in 0..30 {
            short(&bench, &function, n).await;
        }
    };
    tokio::pin!(slow);
    tokio::select! {
        slow = &mut slow => panic!("each of them has waited for a while: {slow:?}"),
        () = quick => {}
    }
    assert!(slow.await.unwrap().text().starts_with("long "));
    bench.is_well().await;
}

#[tokio::test]
async fn they_run_elsewhere_when_the_one_before_ends_the_worker() {
    let (bench, function) = start().await;
    for round in 0..10 {
        let crash = async {
            let outcome = bench.try_get(&function, "/?n=crash&way=exit").await.unwrap_err();
            assert_eq!(outcome.fault.unwrap().class, FaultClass::Crashed);
        };
        let others = join_all((0..10).map(|n| short(&bench, &function, round * 10 + n)));
        let ((), others) = tokio::join!(crash, others);
        assert_eq!(others.len(), 10);
    }
    bench.is_well().await;
}

#[tokio::test]
async fn a_call_that_a_lost_worker_had_not_begun_runs_elsewhere() {
    let (bench, function) = start().await;
    let worker = |call: &Called| call.text().split(' ').nth(1).unwrap().to_owned();
    for n in 0..5 {
        let left = bench.get(&function, &format!("/?n={n}&way=leave")).await;
        // The worker seems idle; it computes, reads nothing, and then ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = short(&bench, &function, n).await;
        assert_ne!(worker(&next), worker(&left));
        // Why it ended is told in the log of the call that it cost a moment.
        let lines: Vec<_> = next.outcome.logs.iter().map(|line| line.message.as_str()).collect();
        assert!(lines.contains(&"left"), "{lines:?}");
    }
    bench.is_well().await;
}

#[tokio::test]
async fn who_reads_slowly_holds_up_neither_the_end_of_a_call_nor_the_next() {
    const LONG: Duration = Duration::from_secs(10);
    let (bench, function) = start_with(waiting(60_000), 1).await;
    let (call, outcome) = Bench::invocation(&function, "/?n=0&way=stream", Body::Empty);
    let reply = bench.sandbox.invoke(call).await.unwrap();
    // Nobody reads the answer yet.
    let next = tokio::time::timeout(LONG, short(&bench, &function, 1)).await.unwrap();
    assert!(next.text().starts_with("1 "));
    let outcome = tokio::time::timeout(LONG, outcome).await.unwrap().unwrap();
    assert_eq!(outcome.fault, None);
    assert_eq!(reply.body.collect().await.unwrap().len(), 200 * 1024);
    bench.is_well().await;
}

#[tokio::test]
async fn an_error_is_the_one_calls_that_made_it() {
    let (bench, function) = start().await;
    let calls = (0..30).map(|n| {
        let way = if n % 3 == 0 { "&way=throw" } else { "" };
        let path = format!("/?n={n}{way}");
        let (bench, function) = (&bench, &function);
        async move { (n, bench.try_get(function, &path).await) }
    });
    for (n, call) in join_all(calls).await {
        match call {
            Ok(call) => assert!(n % 3 != 0 && call.text().starts_with(&format!("{n} "))),
            Err(outcome) => {
                let fault = outcome.fault.unwrap();
                assert_eq!(fault.class, FaultClass::HandlerError, "{n}: {fault:?}");
                assert!(n % 3 == 0 && fault.message.contains(&format!("thrown by {n}")));
            }
        }
    }
    bench.is_well().await;
}

#[tokio::test]
async fn one_that_is_given_up_does_not_run() {
    let (bench, function) = start_with(waiting(60_000), 1).await;
    let before = counted(&bench.get(&function, "/?n=before").await);
    let sleep = bench.try_get(&function, "/?n=long&way=sleep");
    let give_up = async {
        wait_until("it runs", || bench.sandbox.metrics().workers_busy == 1).await;
        let calls = (0..5).map(|n| Bench::invocation(&function, &format!("/?n={n}"), Body::Empty));
        let calls = join_all(calls.map(|(call, _)| bench.sandbox.invoke(call)));
        let waiting = async {
            wait_until("they wait", || bench.sandbox.metrics().queue_length == 5).await;
        };
        tokio::select! {
            _ = calls => panic!("they did not wait"),
            () = waiting => {}
        }
    };
    let (sleep, ()) = tokio::join!(sleep, give_up);
    let after = bench.get(&function, "/?n=after").await;
    assert_eq!((counted(&sleep.unwrap()), counted(&after)), (before + 1, before + 2));
    bench.is_well().await;
}

#[tokio::test]
async fn calls_beyond_what_an_account_may_run_at_once_all_come_to_their_turn() {
    let mut options = options();
    options.platform.user_concurrency = 4;
    let bench = Bench::start_with(options).await;
    let function = bench.function(CALLS);
    bench.get(&function, "/?n=first").await;
    let called = join_all((0..400).map(|n| short(&bench, &function, n))).await;
    assert_eq!(called.len(), 400);
    bench.is_well().await;
    assert_eq!(bench.sandbox.metrics().workers_busy, 0);
}

#[tokio::test]
async fn between_calls_that_come_one_at_a_time_a_worker_looks_instead_of_sleeping() {
    // As long as the machine may take between two calls.
    let options = SandboxOptions { lone_call_watch_us: 10_000_000, ..options() };
    let bench = Bench::start_with(options).await;
    let function = bench.function(CALLS);
    let worker = |call: &Called| call.text().split(' ').nth(1).unwrap().to_owned();
    let first = worker(&bench.get(&function, "/?n=first").await);
    let calls = async |n: usize| {
        for n in 0..n {
            assert_eq!(worker(&short(&bench, &function, n).await), first);
        }
    };
    calls(40).await;
    let before = sleeps(&first);
    calls(200).await;
    let slept = sleeps(&first) - before;
    assert!(slept < 100, "{slept} times in 200 calls");
    // What a call waits for in the event loop comes all the same, and so do several at a time.
    let sleep = bench.try_get(&function, "/?n=long&way=sleep").await.unwrap();
    assert!(sleep.text().starts_with("long "));
    join_all((0..10).map(|n| short(&bench, &function, n))).await;
    bench.is_well().await;
}

#[tokio::test]
async fn what_is_called_when_garbage_is_collected_waits_for_some_of_them_and_not_for_all() {
    const CODE: &str = "
        let isFreed = false;
        const registry = new FinalizationRegistry(() => { isFreed = true; });
        let old = new ArrayBuffer(60 << 20);
        const take = (size) => void new ArrayBuffer(size);
        export default ({ query }) => {
          if (query.way === 'age') take(9 << 20);
          if (query.way === 'collect') {
            (() => registry.register({}, 0))();
            // There is room for so much when all garbage is collected, also what is old.
            old = null;
            take(100 << 20);
            // Until the others wait.
            for (const end = Date.now() + 100; Date.now() < end;);
          }
          return `${isFreed}`;
        };";
    let bench = Bench::start_with(waiting(60_000)).await;
    let function = bench.function_with(CODE, Limits { concurrency: 1, ..Limits::default() });
    // Their length is known after a few.
    for _ in 0..20 {
        assert_eq!(bench.get(&function, "/?way=age").await.text(), "false");
    }
    let others = std::iter::repeat_n("/", 199);
    let paths = std::iter::once("/?way=collect").chain(others);
    let called = join_all(paths.map(|path| bench.get(&function, path))).await;
    assert!(called.iter().any(|call| call.text() == "true"), "they all came before");
    bench.is_well().await;
}

/// How often the process has waited for something.
fn sleeps(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn counted(call: &Called) -> usize {
    call.text().rsplit(' ').next().unwrap().parse().unwrap()
}
