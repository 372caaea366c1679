//! Quotas: set by the operator beside a running server, exact, and remembered.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Account, TestServer, cloudserve, deploy, wait_for};

fn admin(server: &TestServer, arguments: &[&str]) -> Output {
    let mut command = cloudserve();
    command.args(["admin", "quota"]).args(arguments).arg("--data-dir").arg(server.data_dir());
    command.output().unwrap()
}

/// What it prints when it goes well.
fn done(server: &TestServer, arguments: &[&str]) -> String {
    let output = admin(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn quota(owner: &Account) -> Value {
    owner.get("/api/account/quota").await.expect(200).json()
}

/// Calls until one is refused; how many were not.
async fn admitted(owner: &Account) -> usize {
    for n in 0..200 {
        let answer = owner.call("f").await;
        if answer.status == 429 {
            assert_eq!(answer.code(), "quota_exceeded");
            assert!(!answer.header("ratelimit-limit").is_empty());
            assert_eq!(answer.header("ratelimit-remaining"), "0");
            assert_eq!(answer.header("ratelimit-reset"), answer.header("retry-after"));
            return n;
        }
        answer.expect(200);
    }
    panic!("nothing was refused");
}

/// What a larger quota admits, once it holds.
async fn admitted_in_the_end(owner: &Account) -> usize {
    wait_for("the larger quota", || async {
        let n = admitted(owner).await;
        (n > 0).then_some(n)
    })
    .await
}

#[tokio::test]
async fn an_operator_sets_quotas_beside_a_running_server() {
    let log = [("CLOUDSERVE_LOG", "info,cloudserve_gateway::refusal=debug")];
    let server = TestServer::start_with(&log).await;
    let owner = server.register().await;
    owner.deploy(&deploy("f", "f.mjs", "export default () => 1")).await;
    owner.call("f").await.expect(200);
    let before = quota(&owner).await;
    assert_eq!(before["callsPerDay"]["limit"], Value::Null);
    assert_eq!(before["ratePerSecond"]["limit"], Value::Null);

    let name = &owner.user_name;
    let said = done(&server, &[name, "--calls-per-day", "0", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["quota"]["callsPerDay"], 0);
    // The server acts on it within its bound of 5 seconds, and some for the machine; until then calls
    // are made.
    let (mut made, begun) = (1, Instant::now());
    while owner.call("f").await.status == 200 {
        made += 1;
        assert!(begun.elapsed() < Duration::from_secs(20), "the quota does not hold");
    }
    wait_for("what was used", || async {
        (quota(&owner).await["callsPerDay"]["used"] == f64::from(made)).then_some(())
    })
    .await;
    let limit = made + 8;
    let said = done(&server, &[name, "--calls-per-day", &limit.to_string()]);
    assert!(said.contains(&format!("calls per day {limit}")), "{said}");
    assert_eq!(admitted_in_the_end(&owner).await, 8);
    let told = wait_for("what was used", || async {
        let told = quota(&owner).await["callsPerDay"].clone();
        (told["used"] == f64::from(limit)).then_some(told)
    })
    .await;
    assert_eq!((&told["limit"], &told["remaining"]), (&json!(f64::from(limit)), &json!(0.0)));
    let entries = owner.get("/api/account/audit").await.expect(200).json();
    assert_eq!(entries["entries"][0]["action"], "quota.changed");
    assert_eq!(entries["entries"][0]["actor"], "operator");

    // After a restart what was used is used.
    let (status, home) = server.stop().await;
    assert!(status.success());
    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    let refused = owner.call("f").await.expect(429);
    assert_eq!(refused.code(), "quota_exceeded");
    assert_eq!(refused.json()["error"]["executionId"], refused.execution());
    // There is no row, but a line for the operator.
    assert!(server.output().contains(refused.execution()), "{}", server.output());
    done(&server, &[name, "--calls-per-day", &(limit + 5).to_string()]);
    assert_eq!(admitted_in_the_end(&owner).await, 5, "exactly what is left");

    let said = done(&server, &[name, "--calls-per-day", "none", "--rate-per-second", "1"]);
    assert!(said.contains("unlimited"), "{said}");
    wait_for("the rate to hold", || async {
        let answer = owner.call("f").await;
        (answer.status == 429 && answer.code() == "rate_limit").then_some(())
    })
    .await;
    assert_eq!(quota(&owner).await["ratePerSecond"]["limit"], 1);
}

#[tokio::test]
async fn the_operator_is_told_what_is_wrong() {
    let server = TestServer::start().await;
    for (arguments, code, wrong) in [
        (&["nobody-there"][..], 1, "no account"),
        (&["x", "--calls-per-day", "many"], 2, "whole number"),
        (&["x", "--gb-seconds-per-month", "nan"], 2, "must be a number"),
    ] {
        let output = admin(&server, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && said.contains(wrong), "{arguments:?}: {said}");
    }
    let nowhere = cloudserve()
        .args(["admin", "quota", "x", "--data-dir", "/does/not/exist"])
        .output()
        .unwrap();
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("no installation"));
}

#[tokio::test]
async fn the_master_key_is_rotated_while_the_server_is_stopped() {
    let server = TestServer::start().await;
    let owner = server.register().await;
    let code = "export default () => process.env.TOKEN";
    let env = json!({ "TOKEN": "before the rotation" });
    owner.deploy(&deploy("f", "f.mjs", code).with("env", env)).await;
    let rotate = |data_dir: &std::path::Path| {
        let mut command = cloudserve();
        command.args(["admin", "rotate-master-key", "--data-dir"]).arg(data_dir);
        command.output().unwrap()
    };
    let refused = rotate(&server.data_dir());
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"));

    let key_file = server.data_dir().join("secrets/master-key");
    let old = std::fs::read_to_string(&key_file).unwrap();
    let (_, home) = server.stop().await;
    let output = rotate(&home.data_dir());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with("1 environments"), "{said}");
    assert_ne!(std::fs::read_to_string(&key_file).unwrap(), old);
    assert!(!key_file.with_file_name("master-key-previous").exists());

    let server = TestServer::start_at(home).await;
    let owner = owner.at(&server.api, &server.gateway);
    assert_eq!(owner.call("f").await.expect(200).text(), "before the rotation");
}
