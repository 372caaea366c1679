//! What becomes of a function that is there: another version, another visibility, nothing.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::artifact::ArtifactKey;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Plane, version, wait_for};

#[tokio::test]
async fn updates_change_what_they_name() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let first = plane.deploy(&token, &version(1)).await;
    let path = format!("/api/function/{}", first["id"].as_str().unwrap());

    let public = json!({ "visibility": "public" });
    let view = plane.call(&token, "PUT", &path, &public).await.expect(200).body;
    assert_eq!((&view["visibility"], &view["version"]), (&json!("public"), &json!(1)));

    let env = json!({ "env": { "A": "2" }, "limits": { "memoryMb": 64 } });
    let waiting = format!("{path}?wait=true");
    let view = plane.call(&token, "PUT", &waiting, &env).await.expect(200).body;
    assert_eq!((&view["version"], &view["status"]), (&json!(2), &json!("active")));
    assert_eq!(view["sourceHash"], first["sourceHash"]);
    assert_eq!(view["sourcePath"], first["sourcePath"]);
    assert_eq!(view["bundleHash"], first["bundleHash"]);
    assert_eq!((&view["envNames"], &view["limits"]["memoryMb"]), (&json!(["A"]), &json!(64)));
    assert_eq!(view["visibility"], "public");

    let code = json!({ "code": "export default 'new'", "filename": "g.mjs" });
    let view = plane.call(&token, "PUT", &waiting, &code).await.expect(200).body;
    assert_eq!((&view["version"], &view["status"]), (&json!(3), &json!("active")));
    assert!(plane.bundle(&view).await.contains("\"new\""));

    // Code without a name keeps the one there was: this is no TypeScript.
    let code = json!({ "code": "export default <T>(a) => a</T>;", "filename": "h.jsx" });
    plane.call(&token, "PUT", &waiting, &code).await.expect(200);
    let code = json!({ "code": "const React = 1; export default () => <b>new</b>;" });
    let view = plane.call(&token, "PUT", &waiting, &code).await.expect(200).body;
    assert_eq!((&view["version"], &view["status"]), (&json!(5), &json!("active")), "{view:#}");
    let shown = plane.get(&token, &path).await.expect(200).body;
    assert_eq!(shown["source"]["entry"], "h.jsx");

    for path in [
        path.replace("/api/function/", "/api/function/redeploy/"),
        format!("{}/redeploy", path.replace("/function/", "/functions/")),
    ] {
        let again = format!("{path}?wait=true&refreshDependencies=true");
        let view = plane.call(&token, "POST", &again, &Value::Null).await.expect(200).body;
        assert_eq!(view["status"], "active", "{view:#}");
        assert!(plane.bundle(&view).await.contains("\"new\""));
    }

    for field in ["name", "version", "status", "bundleHash", "surprise"] {
        let refused = plane.call(&token, "PUT", &path, &json!({ field: "x" })).await.expect(422);
        assert!(refused.text.contains(field), "{}", refused.text);
    }
    plane.call(&token, "PUT", &path, &json!({})).await.expect(422);
}

#[tokio::test]
async fn a_function_becomes_public_with_what_is_served_and_private_at_once() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let first = plane.deploy(&token, &version(1)).await;
    let path = format!("/api/function/{}", first["id"].as_str().unwrap());
    let waiting = format!("{path}?wait=true");
    for (code, asked, status, seen) in [
        ("export default (", "public", "failed", "private"),
        ("export default 2", "public", "active", "public"),
        ("export default (", "private", "failed", "private"),
    ] {
        let body = json!({ "code": code, "visibility": asked });
        let view = plane.call(&token, "PUT", &waiting, &body).await.expect(200).body;
        assert_eq!((&view["status"], &view["visibility"]), (&json!(status), &json!(seen)));
    }
    let trail = plane.get(&token, "/api/account/audit").await.expect(200).body;
    let told = trail["entries"].as_array().unwrap().iter();
    let told = told.filter(|entry| entry["action"] == "function.visibility_changed");
    let told: Vec<_> = told.map(|entry| entry["detail"].as_str().unwrap()).collect();
    assert_eq!(told, ["private", "public with version 3", "public with version 2"]);

    // What is said of it last holds, also against a deploy that is not served yet.
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    let n_loaded = plane.sandbox.loaded.lock().len();
    let body = json!({ "code": "export default 3", "visibility": "public" });
    let view = plane.call(&token, "PUT", &path, &body).await.expect(202).body;
    assert_eq!(view["visibility"], "private");
    while plane.sandbox.loaded.lock().len() == n_loaded {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let private = json!({ "visibility": "private" });
    plane.call(&token, "PUT", &path, &private).await.expect(200);
    gate.notify_one();
    let id = first["id"].as_str().unwrap();
    let view = wait_for(&plane, &token, id, "activeVersion", &json!(5)).await;
    assert_eq!(view["visibility"], "private");
}

#[tokio::test]
async fn deleted_functions_are_gone_with_all_they_had() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &version(1)).await;
    let path = format!("/api/function/{}", view["id"].as_str().unwrap());
    plane.call(&token, "DELETE", &path, &Value::Null).await.expect(204);
    for (method, path) in [
        ("GET", path.clone()),
        ("PUT", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/redeploy")),
        ("GET", format!("{path}/versions")),
        ("GET", path.replace("/function/", "/logs/")),
    ] {
        let answer = plane.call(&token, method, &path, &json!({ "visibility": "public" })).await;
        assert_eq!(answer.expect(404).code(), "function_not_found", "{method} {path}");
    }
    let key = ArtifactKey::Bundle {
        function: view["id"].as_str().unwrap().parse().unwrap(),
        hash: view["bundleHash"].as_str().unwrap().parse().unwrap(),
    };
    assert!(!plane.stores.artifacts.exists(&key).await.unwrap());
    assert_eq!(plane.sandbox.retired.lock().last().unwrap().1, u32::MAX);

    // The name is free again.
    let view = plane.deploy(&token, &version(2)).await;
    assert_eq!((&view["version"], &view["status"]), (&json!(1), &json!("active")));
}

#[tokio::test]
async fn a_function_deleted_while_it_is_built_leaves_nothing() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    let accepted =
        plane.call(&token, "POST", "/api/function/deploy", &version(1)).await.expect(202).body;
    while plane.sandbox.loaded.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = accepted["id"].as_str().unwrap();
    plane.call(&token, "DELETE", &format!("/api/function/{id}"), &Value::Null).await.expect(204);
    let n_retired = plane.sandbox.retired.lock().len();
    gate.notify_one();
    while plane.sandbox.retired.lock().len() == n_retired {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let objects = plane.data.path().join("data/objects").join(id);
    for _ in 0..100 {
        if !objects.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} is still there", objects.display());
}
