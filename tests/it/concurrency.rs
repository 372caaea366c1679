//! Many functions at once on a small machine, and the bounds on how many.

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use reqwest::Method;
use serde_json::json;

use crate::support::{TestServer, deploy, send, server, wait_for};

const OWNERS: usize = 4;
const FUNCTIONS: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_functions_called_at_once_all_answer() {
    let server = server().await;
    let mut owners = Vec::new();
    for _ in 0..OWNERS {
        owners.push(server.register().await);
    }
    let all: Vec<_> =
        (0..OWNERS * FUNCTIONS).map(|n| (&owners[n % OWNERS], format!("f{n}"))).collect();
    stream::iter(&all)
        .for_each_concurrent(4, |(owner, name)| async move {
            let code = format!("export default () => '{name}'");
            let limits = json!({ "timeoutMs": 60_000 });
            owner.deploy(&deploy(name, "f.mjs", &code).with("limits", limits)).await;
        })
        .await;
    let answers = join_all(all.iter().map(|(owner, name)| owner.call(name))).await;
    for ((_, name), answer) in all.iter().zip(answers) {
        assert_eq!(&answer.expect(200).text(), name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_function_called_at_once_runs_in_parallel_up_to_its_limit() {
    let owner = server().await.register().await;
    let code = "
        let running = 0;
        export default async () => {
          running += 1;
          await new Promise((done) => setTimeout(done, 100));
          const seen = running;
          running -= 1;
          return { seen, pid: process.pid };
        };
    ";
    let limits = json!({ "timeoutMs": 60_000, "concurrency": 3 });
    owner.deploy(&deploy("slow", "slow.mjs", code).with("limits", limits)).await;
    let answers = join_all((0..30).map(|_| owner.call("slow"))).await;
    let mut processes = std::collections::BTreeSet::new();
    for answer in answers {
        let seen = answer.expect(200).json();
        assert_eq!(seen["seen"], 1, "one call at a time in an isolate");
        processes.insert(seen["pid"].as_u64().unwrap());
    }
    assert!((2..=3).contains(&processes.len()), "{processes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_too_long_for_their_function_are_refused_with_advice() {
    let owner = server().await.register().await;
    let code = "export default () => new Promise((done) => setTimeout(() => done('ok'), 1_000));";
    let limits = json!({ "timeoutMs": 60_000, "concurrency": 5 });
    owner.deploy(&deploy("slow", "slow.mjs", code).with("limits", limits)).await;
    let answers = join_all((0..80).map(|_| owner.call("slow"))).await;
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(!served.is_empty() && !refused.is_empty(), "{} of 80", served.len());
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (429, "concurrency_limit"));
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        assert_eq!(answer.header("ratelimit-limit"), "5", "{answer:?}");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_for_each_account() {
    const ANSWER_BYTES: usize = 24 << 20;
    let bound = [("CLOUDSERVE_UNREAD_ANSWER_BYTES", "10000000")];
    let server = TestServer::start_with(&bound).await;
    let (owner, other) = (server.register().await, server.register().await);
    let code = format!("export default () => new Response(new Uint8Array({ANSWER_BYTES}))");
    let limits = json!({ "responseBodyBytes": 40_000_000 });
    let large = deploy("large", "large.mjs", &code).with("limits", limits);
    owner.deploy(&large).await;
    owner.deploy(&deploy("small", "small.mjs", "export default () => 1")).await;
    other.deploy(&deploy("small", "small.mjs", "export default () => 1")).await;

    // More than the sockets between take.
    let unread = owner.run(Method::GET, "large").send().await.unwrap();
    assert_eq!(unread.status(), 200);
    let refused = owner.call("small").await.expect(429);
    assert_eq!(refused.code(), "concurrency_limit");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text().contains("10000000 bytes"), "{refused:?}");
    other.call("small").await.expect(200);

    assert_eq!(unread.bytes().await.unwrap().len(), ANSWER_BYTES);
    wait_for("the account to be served again", || async {
        (owner.call("small").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_what_an_account_may_run_at_once_are_refused_with_its_bound() {
    let settings = "[limits]\nuser_concurrency = 2\nqueue_wait_ms = 300\n";
    let server = TestServer::start_with_file(settings).await;
    let (owner, other) = (server.register().await, server.register().await);
    let code = "
        export default ({ query }) =>
          new Promise((done) => setTimeout(done, Number(query.ms), 'done'));
    ";
    let limits = json!({ "timeoutMs": 60_000 });
    for (account, name) in [(&owner, "a"), (&owner, "b"), (&owner, "c"), (&other, "c")] {
        account.deploy(&deploy(name, "f.mjs", code).with("limits", limits.clone())).await;
    }
    let long = ["a?ms=8000", "b?ms=8000"].map(|path| owner.run(Method::GET, path));
    let long = long.map(|call| tokio::spawn(send(call)));
    wait_for("both to run", || async {
        (server.sandbox_metric("workers{state=\"busy\"}").await == 2).then_some(())
    })
    .await;
    let refused = owner.call("c?ms=0").await.expect(429);
    assert_eq!(refused.code(), "concurrency_limit");
    assert_eq!(refused.header("ratelimit-limit"), "2");
    assert_eq!(other.call("c?ms=0").await.expect(200).text(), "done", "it is not theirs");
    for call in long {
        assert_eq!(call.await.unwrap().expect(200).text(), "done");
    }
    assert_eq!(owner.call("c?ms=0").await.expect(200).text(), "done");
}
