//! Deploys in the queue: how long they are waited for, and who works on them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::ids::BundleHash;
use cloudserve_store::function::BuiltVersion;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::Plane;

const LEASE_MS: u32 = 3_000;

/// Accepts a deploy that does not end before it is told to; the path of where it stands.
async fn held_up(plane: &Plane, token: &str, query: &str) -> (String, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let path = format!("/api/function/deploy{query}");
    let view = plane.call(token, "POST", &path, &body).await.expect(202).body;
    assert!(matches!(view["status"].as_str(), Some("pending" | "deploying")), "{view:#}");
    assert_eq!(view["activeVersion"], Value::Null);
    (format!("/api/function/{}/versions/1/deploy?wait=30", view["id"].as_str().unwrap()), gate)
}

#[tokio::test]
async fn a_request_waits_for_its_deploy_for_a_bounded_time() {
    let plane = Plane::start_with(|options| options.deploy_wait_ms = 200);
    let token = plane.register("ada").await;
    let (standing, gate) = held_up(&plane, &token, "?wait=true").await;
    // What was not waited for goes on.
    gate.notify_one();
    let view = plane.get(&token, &standing).await.expect(200).body;
    assert_eq!(view["status"], "active", "{view:#}");
}

#[tokio::test]
async fn a_deploy_that_takes_longer_than_its_lease_is_not_taken_over() {
    let plane = Plane::start_with(|options| options.lease_ms = LEASE_MS);
    let token = plane.register("ada").await;
    let (standing, gate) = held_up(&plane, &token, "").await;
    while plane.sandbox.loaded.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut other = Plane::at(plane.data.clone(), |options| {
        options.lease_ms = LEASE_MS;
        options.work_dir = plane.data.path().join("builds of another");
    });
    other.start_deployer();
    tokio::time::sleep(Duration::from_millis(2 * u64::from(LEASE_MS) + 1_000)).await;
    gate.notify_one();
    let view = plane.get(&token, &standing).await.expect(200).body;
    assert_eq!(view["status"], "active", "{view:#}");
    assert_eq!(other.sandbox.loaded.lock().len(), 0);
    assert_eq!(plane.sandbox.loaded.lock().len(), 1);
}

#[tokio::test]
async fn what_comes_after_the_end_of_a_deploy_is_done_whenever_its_lease_is_renewed() {
    // So often that one renewal comes while the end is being stored.
    let plane =
        Plane::start_with(|options| (options.lease_ms, options.deploys_in_parallel) = (6, 1));
    let token = plane.register("ada").await;
    for number in 1..=12 {
        let code = format!("export default {number}");
        let view =
            plane.deploy(&token, &json!({ "name": "f", "filename": "f.mjs", "code": code })).await;
        assert_eq!(view["activeVersion"], number, "{view:#}");
        let retired = (view["id"].as_str().unwrap().parse().unwrap(), number);
        let waited_since = Instant::now();
        while !plane.sandbox.retired.lock().contains(&retired) {
            assert!(waited_since.elapsed() < Duration::from_secs(10), "{retired:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn so_many_deploys_are_in_work_at_a_time() {
    let plane = Plane::start_with(|options| options.deploys_in_parallel = 3);
    let token = plane.register("ada").await;
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let body = json!({ "name": name, "filename": "f.mjs", "code": "export default 1" });
        let accepted = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202);
        ids.push(accepted.body["id"].as_str().unwrap().to_owned());
    }
    while plane.sandbox.loaded.lock().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(plane.sandbox.loaded.lock().len(), 3);
    *plane.sandbox.gate.lock() = None;
    gate.notify_waiters();
    for id in ids {
        let standing = format!("/api/function/{id}/versions/1/deploy?wait=30");
        let view = plane.get(&token, &standing).await.expect(200).body;
        assert_eq!(view["status"], "active", "{view:#}");
    }
}

#[tokio::test]
async fn a_version_that_is_served_is_told_to_be_although_another_waits_behind_it() {
    let data = Arc::new(TempDir::new().unwrap());
    let plane = Plane::at(data, |options| options.deploys_queued_per_user = 1_000);
    let token = plane.register("ada").await;
    let built = BuiltVersion {
        bundle_hash: BundleHash::of(b"bundle"),
        bundle_bytes: 6,
        beside_bytes: 0,
        dep_hash: None,
        dependency_cache: None,
        needs_tree: false,
        handler_kind: HandlerKind::Event,
    };
    // It comes to be served before the first step of the request that asks for it, before the second, ...
    for steps in 0.. {
        let name = format!("f{steps}");
        let body = json!({ "name": name, "filename": "f.mjs", "code": "export default 1" });
        plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202);
        let last = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202).body;
        let id = last["id"].as_str().unwrap();
        let standing = format!("/api/function/{id}/versions/1/deploy");
        let mut asked = pin!(plane.get(&token, &standing));
        let mut left = steps;
        let before = poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            asked.as_mut().poll(cx).map(Some)
        });
        if let Some(before) = before.await {
            assert_eq!(before.expect(202).body["status"], "pending");
            break;
        }
        plane.stores.functions.activate(id.parse().unwrap(), 1, built.clone()).await.unwrap();
        let view = asked.await.body;
        assert_eq!(view["version"], 1, "{view:#}");
        if view["status"] == "active" {
            assert_eq!(view["activeVersion"], 1, "after {steps} steps: {view:#}");
        }
    }
}
