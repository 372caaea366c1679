//! Settings of the server do what they say, as it finds them in its environment.

use std::fs;

use cloudserve_store::telemetry::{CallStatus, UsageRow};
use cloudserve_store::{Timestamp, open_embedded};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{TestServer, deploy, server, wait_for};

const ONE: &str = "export default () => 1";

#[tokio::test]
async fn what_is_set_holds() {
    let server = TestServer::start_with(&[
        ("CLOUDSERVE_SESSION_HOURS", "2"),
        ("CLOUDSERVE_SECURE_COOKIE", "true"),
        ("CLOUDSERVE_PUBLIC_URL", "https://functions.example.org/"),
        ("CLOUDSERVE_RATE_PER_SECOND", "3"),
        ("CLOUDSERVE_UNKNOWN_CREDENTIALS_PER_SECOND", "2"),
        ("CLOUDSERVE_REGISTRATIONS_PER_HOUR", "1"),
        ("CLOUDSERVE_DEPLOYS_QUEUED_PER_USER", "1"),
        ("CLOUDSERVE_PACKAGE_LOCK_BYTES", "100"),
        ("CLOUDSERVE_LOG_FORMAT", "json"),
    ])
    .await;
    let owner = server.register().await;
    let another = json!({
        "fullName": "Eve", "userName": "eve", "email": "eve@example.org", "password": owner.password,
    });
    let refused = owner.showing("").post("/api/auth/register", &another).await.expect(429);
    assert_eq!(refused.code(), "rate_limit");
    let login = json!({ "email": owner.email, "password": owner.password });
    let begun = owner.showing("").post("/api/auth/login", &login).await.expect(200);
    let cookie = begun.header("set-cookie");
    assert!(cookie.contains("; Max-Age=7200;") && cookie.contains("; Secure"), "{cookie}");

    let view = owner.deploy(&deploy("f", "f.mjs", ONE)).await.view;
    let url = format!("https://functions.example.org/run/{}/f", owner.user_name);
    assert_eq!(view["url"], url.as_str());

    let quota = owner.get("/api/account/quota").await.expect(200).json();
    assert_eq!(quota["ratePerSecond"]["limit"], 3);
    // At once: one after the other may be as slow as the rate, where others keep the machine busy.
    let refused = wait_for("the rate to hold", || async {
        let answers = join_all((0..8).map(|_| owner.call("f"))).await;
        answers.into_iter().find(|answer| answer.status == 429)
    })
    .await;
    assert_eq!((&*refused.code(), refused.header("ratelimit-limit")), ("rate_limit", "3"));

    // Keys that nobody has any more.
    let mut keys = Vec::new();
    for _ in 0..8 {
        let body = json!({ "name": "k" });
        let created = owner.post("/api/apikeys", &body).await.expect(201).json();
        let id = created["id"].as_str().unwrap();
        owner.delete(&format!("/api/apikeys/{id}")).await.expect(204);
        keys.push(created["key"].as_str().unwrap().to_owned());
    }
    // Those that come at one moment are all looked up; the next are refused for them.
    let strangers: Vec<_> = keys.iter().map(|key| owner.showing(key)).collect();
    let refused = wait_for("8 to be too many", || async {
        let answers = join_all(strangers.iter().map(|one| one.get("/api/auth/me"))).await;
        let (refused, others): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 429);
        for answer in others {
            assert_eq!(answer.expect(401).code(), "unauthorized");
        }
        refused.into_iter().next()
    })
    .await;
    assert_eq!(refused.code(), "rate_limit");
    assert!(refused.text().contains("more than 2 credentials"), "{}", refused.text());

    let slow = "await new Promise((done) => setTimeout(done, 5_000)); export default 1";
    owner.post("/api/function/deploy", &deploy("slow", "f.mjs", slow).0).await.expect(202);
    let another = deploy("another", "f.mjs", ONE);
    let refused = owner.post("/api/function/deploy", &another.0).await.expect(429);
    assert_eq!(refused.code(), "limit_exceeded");
    let lock = json!({ "lockfileVersion": 3, "packages": {}, "x": "x".repeat(100) });
    let locked = another.with("packageLock", lock);
    let refused = owner.post("/api/function/deploy", &locked.0).await.expect(422).json();
    let wrong = &refused["error"]["details"]["packageLock"];
    assert!(wrong.as_str().is_some_and(|text| text.contains("100 bytes")), "{refused}");

    let output = server.output();
    // The last line may be under way.
    let (whole, _) = output.rsplit_once('\n').unwrap();
    let log: Vec<_> = whole.lines().filter(|line| !line.starts_with("listening ")).collect();
    assert!(!log.is_empty(), "{output}");
    for line in log {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn logs_are_kept_for_as_long_as_is_set_and_usage_stays() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let code = "export default () => { console.log('kept'); }";
    let id = owner.deploy(&deploy("f", "f.mjs", code)).await.id;
    let answer = owner.call("f").await.expect(204);
    owner.logs_of(&id, answer.execution()).await;
    owner.usage_of(&id, answer.execution()).await;
    let (_, home) = server.stop().await;

    let data_dir = home.data_dir();
    let at = ("CLOUDSERVE_DATA_DIR", data_dir.to_str().unwrap());
    let server = TestServer::start_with(&[at, ("CLOUDSERVE_LOG_RETENTION_DAYS", "0")]).await;
    let owner = owner.at(&server.api, &server.gateway);
    wait_for("the log to go", || async {
        let logs = owner.get(&format!("/api/logs/{id}")).await.expect(200).json();
        logs["logs"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(owner.usage_of(&id, answer.execution()).await.len(), 1);
}

#[tokio::test]
async fn single_calls_are_kept_for_as_long_as_is_set_and_their_sums_stay() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let server = TestServer::start().await;
    let owner = server.register().await;
    let id = owner.deploy(&deploy("f", "f.mjs", ONE)).await.id;
    let young = owner.call("f").await.expect(200);
    owner.usage_of(&id, young.execution()).await;
    let me = owner.get("/api/auth/me").await.expect(200).json();
    let (_, home) = server.stop().await;

    let data_dir = home.data_dir();
    let old = UsageRow {
        function_id: id.parse().unwrap(),
        user_id: me["user"]["id"].as_str().unwrap().parse().unwrap(),
        execution_id: "018c0000-0000-7000-8000-000000000000".parse().unwrap(),
        version: 1,
        duration_ms: 1.0,
        cpu_ms: 1.0,
        memory_mb: 1.0,
        status: CallStatus::Success,
        code: "ok".into(),
        cold: false,
        timestamp: Timestamp(Timestamp::now().0 - 2 * DAY_MS),
    };
    let stores = open_embedded(&data_dir).unwrap();
    stores.telemetry.record(vec![old], Vec::new()).await.unwrap();
    drop(stores);

    let at = ("CLOUDSERVE_DATA_DIR", data_dir.to_str().unwrap());
    let server = TestServer::start_with(&[at, ("CLOUDSERVE_USAGE_RETENTION_DAYS", "1")]).await;
    let owner = owner.at(&server.api, &server.gateway);
    let path = format!("/api/usage?functionId={id}");
    let left = wait_for("the old call to go", || async {
        let usage = owner.get(&format!("{path}&groupBy=none")).await.expect(200).json();
        let calls = usage["usage"].as_array().unwrap().clone();
        (calls.len() == 1).then_some(calls)
    })
    .await;
    assert_eq!(left[0]["executionId"], young.execution());
    let totals = owner.get(&path).await.expect(200).json();
    assert_eq!(totals["totals"]["executed"], 2);
}

/// The command lines of its workers, and of what they are forked from.
fn workers(server: &TestServer) -> Vec<String> {
    let lines = server.children().into_iter().map(|pid| {
        // It may have ended meanwhile.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).into_owned()
    });
    lines.filter(|line| line.contains("cloudserve-worker")).collect()
}

#[tokio::test]
async fn workers_come_to_be_as_is_set_and_no_more_of_them() {
    let is_of_a_zygote = |line: &String| line.ends_with("\0zygote\0");
    wait_for("the usual workers", || async {
        workers(server().await).iter().any(is_of_a_zygote).then_some(())
    })
    .await;
    let server = TestServer::start_with(&[
        ("CLOUDSERVE_LAUNCH", "process"),
        ("CLOUDSERVE_POOL_SIZE", "1"),
        ("CLOUDSERVE_MAX_WORKERS", "3"),
    ])
    .await;
    let owner = server.register().await;
    for n in 0..5 {
        let name = format!("f{n}");
        owner.deploy(&deploy(&name, "f.mjs", ONE)).await;
        assert_eq!(owner.call(&name).await.expect(200).text(), "1");
        let processes = server.sandbox_metric("processes").await;
        assert!((1..=3).contains(&processes), "{processes}");
        let workers = workers(&server);
        assert!(!workers.is_empty() && !workers.iter().any(is_of_a_zygote), "{workers:?}");
    }
}

#[tokio::test]
async fn a_full_jail_is_there_where_it_is_required_or_nothing_is() {
    let api = &server().await.api;
    let said = wait_for("the server to be ready", || async {
        let answer = reqwest::get(format!("{api}/readyz")).await.unwrap();
        let is_ready = answer.status() == 200;
        let said = answer.text().await.unwrap();
        is_ready.then_some(said)
    })
    .await;
    let required = [("CLOUDSERVE_REQUIRE_JAIL", "full")];
    if said.contains("jail: full") {
        let server = TestServer::start_with(&required).await;
        let owner = server.register().await;
        owner.deploy(&deploy("f", "f.mjs", ONE)).await;
        owner.call("f").await.expect(200);
    } else {
        let refused = TestServer::start_refused(&required).await;
        assert!(refused.contains("CLOUDSERVE_REQUIRE_JAIL=full"), "{refused}");
    }
}
