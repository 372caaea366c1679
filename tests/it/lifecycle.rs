//! Start, health, drain, end.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{
    PATIENCE, TestServer, age, cloudserve, deploy, metric_at, send, server, try_send, wait_for,
};

const SLOW: &str = "
export default async ({ query }) => {
  console.log('begun');
  await new Promise((done) => setTimeout(done, Number(query.ms)));
  return 'slept';
};
";

#[tokio::test]
async fn both_listeners_answer_probes_and_metrics() {
    let server = server().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for base in [&server.api, &server.gateway] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = wait_for("the probe", || async {
                let answer = send(http.get(format!("{base}{path}"))).await;
                (answer.status == 200).then_some(answer)
            })
            .await;
            if path == "/metrics" {
                assert!(answer.header("content-type").starts_with("text/plain"));
                assert!(answer.text().contains("# TYPE cloudserve_gateway_"), "{}", answer.text());
            }
        }
    }
    // Whoever asks the API alone sees the calls and the workers, each once.
    let shown = send(http.get(format!("{}/metrics", server.api))).await.text();
    for line in ["# TYPE cloudserve_gateway_calls_total ", "# TYPE cloudserve_sandbox_workers "] {
        assert_eq!(shown.matches(line).count(), 1, "{line}: {shown}");
    }
}

#[tokio::test]
async fn callers_that_take_all_places_keep_no_probe_out() {
    let settings = [("CLOUDSERVE_MAX_CONNECTIONS", "2"), ("CLOUDSERVE_OPS_LISTEN", "127.0.0.1:0")];
    let server = TestServer::start_with(&settings).await;
    let ops = server.ops().expect("it has a listener for probes");
    let mut held = Vec::new();
    for base in [&server.api, &server.api, &server.gateway, &server.gateway] {
        let address = base.strip_prefix("http://").unwrap();
        held.push(TcpStream::connect(address).await.unwrap());
    }
    wait_for("all places to be taken", || async {
        (metric_at(&ops, "cloudserve_gateway_connections").await == 2).then_some(())
    })
    .await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        wait_for(path, || async {
            let answer = reqwest::get(format!("{ops}{path}")).await.unwrap();
            (answer.status() == 200).then_some(())
        })
        .await;
    }
    // Nothing else is there: network policies open it to other people.
    for path in ["/", "/api/auth/me", "/run/a/b"] {
        let answer = reqwest::get(format!("{ops}{path}")).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_calls_that_have_begun_and_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let limits = json!({ "timeoutMs": 60_000 });
    let function = owner.deploy(&deploy("slow", "slow.mjs", SLOW).with("limits", limits)).await;
    let unfinished = deploy("later", "f.mjs", "export default () => 'later'");

    let calls = [(); 8].map(|()| tokio::spawn(send(owner.run(Method::GET, "slow?ms=2000"))));
    server.wait_for_metric("cloudserve_gateway_in_flight", 8).await;
    owner.post("/api/function/deploy", &unfinished.0).await.expect(202);
    let children = server.children();
    let (status, home) = server.stop().await;
    assert_eq!(status.code(), Some(0), "{status}");

    let mut executions = Vec::new();
    for answer in join_all(calls).await {
        let answer = answer.unwrap().expect(200);
        assert_eq!(answer.text(), "slept");
        executions.push(answer.execution().to_owned());
    }
    for pid in children {
        assert!(!crate::support::is_alive(pid), "process {pid} is left");
    }

    // Nothing that was promised is lost: rows of the last calls, and the deploy in the queue.
    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    for execution in executions {
        assert_eq!(owner.usage_of(&function.id, &execution).await.len(), 1);
        assert_eq!(owner.logs_of(&function.id, &execution).await.len(), 1);
    }
    wait_for("the deploy that was in the queue", || async {
        (owner.call("later").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let limits = json!({ "timeoutMs": 600_000 });
    owner.deploy(&deploy("slow", "slow.mjs", SLOW).with("limits", limits)).await;
    let call = tokio::spawn(try_send(owner.run(Method::GET, "slow?ms=500000")));
    server.wait_for_metric("cloudserve_gateway_in_flight", 1).await;

    server.signal(libc::SIGTERM);
    wait_for("the drain to begin", || {
        let drains = server.output().contains("draining");
        async move { drains.then_some(()) }
    })
    .await;
    let (status, _) = server.stop().await;
    assert_eq!(status.code(), Some(130), "{status}");
    assert!(call.await.unwrap().is_err(), "the call was cut off");
}

#[tokio::test]
async fn a_drain_has_a_bound() {
    let server = TestServer::start_with(&[("CLOUDSERVE_DRAIN_TIMEOUT_MS", "200")]).await;
    let owner = server.register().await;
    let limits = json!({ "timeoutMs": 600_000 });
    let function = owner.deploy(&deploy("slow", "slow.mjs", SLOW).with("limits", limits)).await;
    let call = tokio::spawn(try_send(owner.run(Method::GET, "slow?ms=500000")));
    server.wait_for_metric("cloudserve_gateway_in_flight", 1).await;
    let (status, home) = server.stop().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let answer = call.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500));

    // What it has used and said is not lost.
    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    let rows = owner.get(&format!("/api/usage?functionId={}&groupBy=none", function.id)).await;
    assert_eq!(rows.text().matches("executionId").count(), 1, "{}", rows.text());
    let logs = owner.get(&format!("/api/logs/{}", function.id)).await;
    assert!(logs.text().contains("begun"), "{}", logs.text());
}

#[tokio::test]
async fn a_caller_that_hangs_up_frees_the_function() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let limits = json!({ "timeoutMs": 60_000, "concurrency": 1 });
    let function = owner.deploy(&deploy("slow", "slow.mjs", SLOW).with("limits", limits)).await;
    let call = tokio::spawn(try_send(owner.run(Method::GET, "slow?ms=50000")));
    server.wait_for_metric("cloudserve_gateway_in_flight", 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(owner.call("slow?ms=1").await.expect(200).text(), "slept");
    wait_for("the row of the call that was given up", || async {
        let path = format!("/api/usage?functionId={}&groupBy=none", function.id);
        owner.get(&path).await.text().contains("cancelled").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start_with(&[("CLOUDSERVE_HEAD_TIMEOUT_MS", "300")]).await;
    for base in [&server.api, &server.gateway] {
        let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{base} still waits");
    }
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let server = TestServer::start().await;
    let second = cloudserve()
        .args(["serve", "--api-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(server.data_dir())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("in use by another cloudserve process"), "{message}");
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_said_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cloudserve.toml"), "[gateway]\nlitsen = '127.0.0.1:0'\n")
        .unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for (sub, variable, value, says) in [
        ("", "CLOUDSERVE_LOG", "info", "litsen"),
        ("empty", "CLOUDSERVE_API_LISTEN", "nowhere", "CLOUDSERVE_API_LISTEN"),
        ("empty", "CLOUDSERVE_JWT_SECRET", "hunter2", "CLOUDSERVE_JWT_SECRET"),
        ("empty", "CLOUDSERVE_WORKER", "/no/such/worker", "/no/such/worker"),
        ("empty", "CLOUDSERVE_ESBUILD", "/no/such/esbuild", "/no/such/esbuild"),
        ("empty", "CLOUDSERVE_NPM", "/no/such/npm", "/no/such/npm"),
    ] {
        let run = cloudserve()
            .arg("serve")
            .current_dir(dir.path().join(sub))
            // Some of it is found to be wrong only after it listens.
            .env("CLOUDSERVE_API_LISTEN", "127.0.0.1:0")
            .env("CLOUDSERVE_GATEWAY_LISTEN", "127.0.0.1:0")
            .env(variable, value)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{variable}: {message}");
        assert!(message.contains(says) && !message.contains("hunter2"), "{variable}: {message}");
    }
    let run = cloudserve().args(["serve", "--litsen", "x"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
}

/// V8 would collect the heap that a worker was forked with, if it was left alone for half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_call_collects_no_garbage_however_old_the_server_is() {
    const OLD: Duration = Duration::from_secs(32);
    let server = server().await;
    wait_for("the server to be old", || async { (age(server.pid()) > OLD).then_some(()) }).await;
    let owner = server.register().await;
    let code = "
        const garbage = new WeakRef({});
        export default () => garbage.deref() !== undefined;
    ";
    owner.deploy(&deploy("fresh", "fresh.mjs", code)).await;
    for _ in 0..5 {
        assert_eq!(owner.call("fresh").await.expect(200).text(), "true");
    }
}
