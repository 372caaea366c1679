//! The way of a version through the queue.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use cloudserve_api::ApiOptions;
use cloudserve_identity::{Sealer, Secret};
use cloudserve_protocol::build::DependencyError;
use cloudserve_protocol::call::Env;
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_store::function::SealedEnv;
use futures::stream;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::support::{Plane, version, wait_for};

#[tokio::test]
async fn a_deploy_is_accepted_built_loaded_and_then_served() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let mut body = version(1);
    body["env"] = json!({ "TOKEN": "s3cret-value", "A": "1" });
    body["limits"] = json!({ "timeoutMs": 9_000 });
    let accepted = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202).body;
    assert_eq!(accepted["status"], "pending");
    assert_eq!(accepted["id"], accepted["_id"]);
    let id = accepted["id"].as_str().unwrap();
    let view = wait_for(&plane, &token, id, "status", &json!("active")).await;
    assert_eq!((&view["version"], &view["activeVersion"]), (&json!(1), &json!(1)));
    assert_eq!(view["endpoint"], "/run/ada/f");
    assert_eq!(view["url"], "http://127.0.0.1:8081/run/ada/f");
    assert_eq!(view["code"], "export default 1");
    assert_eq!(view["source"]["files"]["f.mjs"], "export default 1");
    assert_eq!(view["envNames"], json!(["A", "TOKEN"]));
    assert_eq!(view["limits"]["timeoutMs"], 9_000);
    assert_eq!(view["visibility"], "private");
    assert_eq!(view["handlerKind"], "event");
    assert!(!view.to_string().contains("s3cret"), "{view}");

    let loaded = plane.sandbox.loaded.lock()[0].clone();
    assert_eq!(loaded.version, 1);
    assert_eq!(loaded.env.0["TOKEN"], "s3cret-value");
    assert_eq!(loaded.limits.timeout_ms, 9_000);
    assert_eq!(loaded.bundle_hash.as_str(), view["bundleHash"].as_str().unwrap());

    // What a new version does not say stays as it was.
    let view = plane.deploy(&token, &version(2)).await;
    assert_eq!((&view["id"], &view["version"]), (&accepted["id"], &json!(2)));
    assert_eq!(view["limits"]["timeoutMs"], 9_000);
    assert_eq!(view["envNames"], json!(["A", "TOKEN"]));
    let listed = plane.get(&token, "/api/function").await.expect(200).body;
    let mut shown = plane.get(&token, &format!("/api/function/{id}")).await.expect(200).body;
    shown.as_object_mut().unwrap().retain(|field, _| field != "source" && field != "code");
    assert_eq!(listed["functions"], json!([shown]));
    // Old workers go once the pointer has moved, which the waiting request learns at the same time.
    let retired = || plane.sandbox.retired.lock().iter().map(|(_, v)| *v).collect::<Vec<_>>();
    while retired().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(retired(), [1, 2]);
}

#[tokio::test]
async fn a_deploy_is_waited_for_in_steps() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    let deploy = plane.call(&token, "POST", "/api/function/deploy", &version(1)).await;
    let id = deploy.expect(202).body["id"].as_str().unwrap().to_owned();
    let of =
        |version: &str, wait: &str| format!("/api/function/{id}/versions/{version}/deploy?{wait}");
    for wait in ["", "wait=0", "wait=1"] {
        let view = plane.get(&token, &of("1", wait)).await.expect(202).body;
        assert!(matches!(view["status"].as_str(), Some("pending" | "deploying")), "{view:#}");
    }
    gate.notify_one();
    let view = plane.get(&token, &of("1", "wait=30")).await.expect(200).body;
    assert_eq!((&view["status"], &view["activeVersion"]), (&json!("active"), &json!(1)));
    // As in the answer to a deploy: the source is for those who may read.
    assert!(view.get("source").is_none() && view.get("code").is_none(), "{view:#}");

    *plane.sandbox.gate.lock() = None;
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default (" });
    assert_eq!(plane.deploy(&token, &body).await["status"], "failed");
    let view = plane.get(&token, &of("2", "")).await.expect(200).body;
    assert_eq!(view["deployError"]["code"], "bundle_error");
    let view = plane.get(&token, &of("1", "")).await.expect(200).body;
    assert_eq!((&view["version"], &view["status"]), (&json!(1), &json!("active")));
    for version in ["3", "0", "x", "-1"] {
        let none = plane.get(&token, &of(version, "wait=30")).await.expect(404);
        assert_eq!(none.code(), "version_not_found", "{version}");
    }
    for wait in ["wait=31", "wait=-1", "wait=true"] {
        plane.get(&token, &of("1", wait)).await.expect(422);
    }
}

#[tokio::test]
async fn failures_are_told_and_leave_what_is_served_alone() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    plane.deploy(&token, &version(1)).await;
    let broken = json!({ "name": "f", "filename": "f.mjs", "code": "export default (" });
    let view = plane.deploy(&token, &broken).await;
    assert_eq!(view["deployError"]["code"], "bundle_error");

    let fault = Fault::new(FaultClass::StartupError, "the module threw").with_detail("at f.mjs:1");
    plane.sandbox.faults.lock().push(fault);
    let view = plane.deploy(&token, &version(2)).await;
    assert_eq!(view["deployError"]["code"], "startup_error");
    assert_eq!(view["deployError"]["message"], "the module threw\nat f.mjs:1");

    let fault = Fault::new(FaultClass::StartupError, "no database at db://ada:pw@db")
        .with_detail("Error: no database at db://ada:pw@db\n    at f.mjs:1");
    plane.sandbox.faults.lock().push(fault);
    let mut body = version(3);
    body["env"] = json!({ "DATABASE": "db://ada:pw@db" });
    let view = plane.deploy(&token, &body).await;
    let told = "no database at ***\nError: no database at ***\n    at f.mjs:1";
    assert_eq!(view["deployError"]["message"], told);

    let mut body = version(4);
    body["dependencies"] = json!(["lodash@99"]);
    plane.sandbox.errors.lock().push(DependencyError::Rejected("no such version".into()));
    let view = plane.deploy(&token, &body).await;
    assert_eq!(
        view["deployError"],
        json!({ "code": "dependency_error", "message": "no such version" })
    );
    assert_eq!((&view["status"], &view["activeVersion"]), (&json!("failed"), &json!(1)));
}

#[tokio::test]
async fn what_is_not_the_deploys_fault_is_tried_again_a_bounded_number_of_times() {
    let plane = Plane::start_with(|options| options.deploy_attempts = 3);
    let token = plane.register("ada").await;
    let unavailable = || Fault::new(FaultClass::SandboxUnavailable, "none");
    *plane.sandbox.faults.lock() = vec![unavailable(), unavailable()];
    let view = plane.deploy(&token, &version(1)).await;
    assert_eq!(view["status"], "active", "{view:#}");
    assert_eq!(plane.sandbox.loaded.lock().len(), 3);

    *plane.sandbox.faults.lock() = vec![unavailable(), unavailable(), unavailable()];
    let view = plane.deploy(&token, &version(2)).await;
    assert_eq!(view["deployError"]["code"], "internal", "{view:#}");
    assert_eq!(view["activeVersion"], 1);
}

#[tokio::test]
async fn accepted_deploys_are_finished_by_the_next_process() {
    let mut plane = Plane::start_with(|options| {
        options.drain_ms = 10;
        options.lease_ms = 60_000;
    });
    let token = plane.register("ada").await;
    // One is being loaded when the process ends, one still waits.
    *plane.sandbox.gate.lock() = Some(Arc::new(Notify::new()));
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let mut body = version(1);
        body["name"] = json!(name);
        let accepted = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(202);
        ids.push(accepted.body["id"].as_str().unwrap().to_owned());
    }
    while plane.sandbox.loaded.lock().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    plane.stop_deployer().await;

    let mut next = Plane::at(plane.data.clone(), |_| {});
    next.start_deployer();
    for id in ids {
        wait_for(&next, &token, &id, "status", &json!("active")).await;
    }
}

#[tokio::test]
async fn deploys_of_one_name_at_once_each_make_a_version_of_their_own() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let bodies: Vec<_> = (0..8).map(version).collect();
    let all = bodies.iter().map(|body| plane.deploy(&token, body));
    let views = futures::future::join_all(all).await;
    let mut versions: Vec<_> = views.iter().map(|view| view["version"].as_u64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=8).collect::<Vec<_>>());
    assert!(views.iter().all(|view| view["id"] == views[0]["id"]));
    for view in &views {
        assert!(matches!(view["status"].as_str(), Some("active" | "superseded")), "{view:#}");
    }
    let id = views[0]["id"].as_str().unwrap();
    let last = wait_for(&plane, &token, id, "activeVersion", &json!(8)).await;
    // The source that is shown is that of the version that won, not a mixture.
    let winner = views.iter().find(|view| view["version"] == 8).unwrap();
    assert_eq!(last["sourceHash"], winner["sourceHash"]);
    let listed = plane.get(&token, &format!("/api/function/{id}/versions")).await.expect(200).body;
    assert_eq!(listed.as_array().unwrap().len(), 8);
    assert_eq!((&listed[0]["version"], &listed[0]["active"]), (&json!(8), &json!(true)));
    // None was passed over for a newer one that waited: whoever deployed it can go back to it.
    assert!(listed.as_array().unwrap().iter().all(|of| of["bundleHash"].is_string()), "{listed:#}");
    let path = format!("/api/function/{id}/rollback");
    let view = plane.call(&token, "POST", &path, &json!({ "version": 1 })).await.expect(200).body;
    assert_eq!(view["activeVersion"], 1);
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_deploys_in_the_queue() {
    let set = |options: &mut ApiOptions| options.deploys_queued_per_user = 2;
    let mut plane = Plane::at(Arc::new(TempDir::new().unwrap()), set);
    let (ada, eve) = (plane.register("ada").await, plane.register("eve").await);
    let named = |name: &str| {
        let mut body = version(1);
        body["name"] = json!(name);
        body
    };
    let accepted =
        plane.call(&ada, "POST", "/api/function/deploy", &named("a")).await.expect(202).body;
    plane.call(&ada, "POST", "/api/function/deploy", &named("b")).await.expect(202);
    let stored = || std::fs::read_dir(plane.data.path().join("data/objects")).unwrap().count();
    let before = stored();
    let path = format!("/api/function/{}", accepted["id"].as_str().unwrap());
    for (method, path, body) in [
        ("POST", "/api/function/deploy".to_owned(), named("c")),
        ("PUT", path.clone(), json!({ "limits": { "memoryMb": 64 } })),
        ("POST", format!("{path}/redeploy"), Value::Null),
        ("PATCH", format!("{path}/env"), json!({ "set": { "A": "1" } })),
    ] {
        let refused = plane.call(&ada, method, &path, &body).await.expect(429);
        assert_eq!(refused.code(), "limit_exceeded", "{method} {path}");
        assert!(refused.text.contains("2 deploys"), "{}", refused.text);
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(stored(), before, "what is refused takes no room");
    // Others have places of their own, and no place is needed for what makes no version.
    plane.call(&eve, "POST", "/api/function/deploy", &named("a")).await.expect(202);
    plane.call(&ada, "PUT", &path, &json!({ "visibility": "public" })).await.expect(200);

    plane.start_deployer();
    let id = accepted["id"].as_str().unwrap();
    wait_for(&plane, &ada, id, "status", &json!("active")).await;
    plane.deploy(&ada, &named("c")).await;
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_else_out() {
    let plane = Plane::start_with(|options| {
        options.uploads_in_parallel = 2;
        options.upload_wait_ms = 50;
    });
    let (ada, bob) = (plane.register("ada").await, plane.register("bob").await);
    let eve = plane.register("eve").await;
    let deploy = |token: String| {
        let plane = &plane;
        async move { plane.call(&token, "POST", "/api/function/deploy", &version(1)).await }
    };
    stall(&plane, &ada).await;
    let refused = deploy(ada).await.expect(503);
    assert_eq!((refused.code(), refused.header("retry-after")), ("unavailable", "1"));
    deploy(bob.clone()).await.expect(202);
    // Where all the room is taken, one waits for a while and no longer.
    stall(&plane, &eve).await;
    deploy(bob).await.expect(503);
}

/// Begins a deploy whose body never comes; returns when it is waited for.
async fn stall(plane: &Plane, token: &str) {
    let begun = Arc::new(Notify::new());
    let told = begun.clone();
    let body = stream::poll_fn(move |_| {
        told.notify_one();
        Poll::<Option<Result<Bytes, Infallible>>>::Pending
    });
    let request = Request::builder()
        .method("POST")
        .uri("/api/function/deploy")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from_stream(body))
        .unwrap();
    tokio::spawn(plane.api.router().oneshot(request));
    begun.notified().await;
}

#[tokio::test]
async fn an_environment_under_a_lost_key_hides_nothing_and_is_replaced() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let mut body = version(1);
    body["env"] = json!({ "TOKEN": "s3cret" });
    plane.deploy(&token, &body).await;
    let functions = &plane.stores.functions;
    let sealed = functions.sealed_envs(None, 1).await.unwrap().pop().unwrap();
    let id = sealed.function_id;
    let env = Env([("TOKEN".to_owned(), "s3cret".to_owned())].into());
    let env = Sealer::new(&Secret::generate().unwrap()).seal(id, &env).unwrap();
    // The format of before does not name its key: the bytes behind the name, as format 1.
    let unnamed = SealedEnv([&[1][..], &env.0[9..]].concat());
    let path = format!("/api/function/{id}");
    let mut before = sealed.env;
    for env in [env, unnamed] {
        assert!(functions.replace_env(id, 1, before, env.clone()).await.unwrap());
        before = env;
        let listed = plane.get(&token, "/api/function").await.expect(200).body;
        assert_eq!(listed["functions"][0]["envNames"], json!([]));
        plane.get(&token, &path).await.expect(200);
        for (method, path, body) in [
            ("POST", "/api/function/deploy".to_owned(), version(2)),
            ("POST", format!("{path}/redeploy"), Value::Null),
            ("PATCH", format!("{path}/env"), json!({ "set": { "A": "1" } })),
        ] {
            let refused = plane.call(&token, method, &path, &body).await.expect(409);
            assert_eq!(refused.code(), "environment_closed", "{method} {path}");
        }
    }
    let mut body = version(2);
    body["env"] = json!({ "TOKEN": "another" });
    let view = plane.deploy(&token, &body).await;
    assert_eq!((&view["activeVersion"], &view["envNames"]), (&json!(2), &json!(["TOKEN"])));
}

#[tokio::test]
async fn a_source_that_cannot_be_read_now_is_no_error_of_ours() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &version(1)).await;
    let id = view["id"].as_str().unwrap();
    // It is there and cannot be opened, as of a disk or a server that fails.
    let stored = find(plane.data.path(), "f.mjs").expect("the source is stored");
    std::fs::remove_file(&stored).unwrap();
    std::os::unix::fs::symlink(&stored, &stored).unwrap();
    for path in [format!("/api/function/{id}"), format!("/api/function/{id}/versions/1")] {
        let answer = plane.get(&token, &path).await.expect(503);
        assert_eq!((answer.code(), answer.header("retry-after")), ("unavailable", "1"), "{path}");
    }
}

/// The first file of this name below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(directory).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}
