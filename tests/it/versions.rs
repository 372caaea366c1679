//! Versions: listed, called by number, served again without a build, and another environment
//! without one.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Account, TestServer, deploy, send, server, wait_for};

const ENV: &str = "export default () => `${process.env.GREETING ?? 'none'} VERSION`;";

fn code(version: u32) -> String {
    ENV.replace("VERSION", &version.to_string())
}

async fn versions(owner: &Account, id: &str) -> Vec<Value> {
    let list = owner.get(&format!("/api/function/{id}/versions")).await.expect(200).json();
    list.as_array().unwrap().clone()
}

fn active(versions: &[Value]) -> Vec<u64> {
    let active = versions.iter().filter(|version| version["active"] == true);
    active.map(|version| version["version"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_rollback_serves_an_old_version_and_builds_nothing() {
    let owner = server().await.register().await;
    let id = owner.deploy(&deploy("f", "f.mjs", &code(1))).await.id;
    for version in 2..=3 {
        owner.deploy(&deploy("f", "f.mjs", &code(version))).await;
    }
    owner.deploy_failing(&deploy("f", "f.mjs", "export default (")).await;
    let before = versions(&owner, &id).await;
    let numbers: Vec<_> = before.iter().map(|version| version["version"].clone()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    assert_eq!(active(&before), [3]);
    for field in ["sourceHash", "bundleHash"] {
        assert_eq!(before[1][field].as_str().unwrap().len(), 64, "{field}");
        assert_ne!(before[1][field], before[2][field], "{field}");
    }
    assert_eq!(before[0]["bundleHash"], Value::Null);

    let rollback = |version: Value| {
        let (owner, path) = (owner.clone(), format!("/api/function/{id}/rollback"));
        async move { owner.post(&path, &json!({ "version": version })).await }
    };
    for (version, status, code) in [
        (json!(4), 409, "version_not_built"),
        (json!(9), 404, "version_not_found"),
        (json!(0), 404, "version_not_found"),
        (json!("1"), 422, "validation_error"),
        (json!(-1), 422, "validation_error"),
        (Value::Null, 422, "validation_error"),
    ] {
        let answer = rollback(version.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{version}");
    }
    assert_eq!(owner.call("f").await.expect(200).text(), "none 3");

    let view = rollback(json!(1)).await.expect(200).json();
    assert_eq!((&view["activeVersion"], &view["version"]), (&json!(1), &json!(4)));
    assert_eq!(owner.call("f").await.expect(200).text(), "none 1");
    let after = versions(&owner, &id).await;
    assert_eq!(active(&after), [1]);
    assert_eq!(after.len(), before.len(), "nothing was built");

    // Forward again, and a deploy goes on from there.
    rollback(json!(3)).await.expect(200);
    assert_eq!(owner.call("f").await.expect(200).text(), "none 3");
    rollback(json!(2)).await.expect(200);
    owner.deploy(&deploy("f", "f.mjs", &code(5))).await;
    assert_eq!(owner.call("f").await.expect(200).text(), "none 5");
}

#[tokio::test]
async fn a_version_is_called_by_its_number() {
    let server = server().await;
    let (owner, other) = (server.register().await, server.register().await);
    let public = |version| deploy("f", "f.mjs", &code(version)).with("visibility", json!("public"));
    owner.deploy(&public(1)).await;
    owner.deploy(&public(2)).await;
    let call = |account: &Account, version: &str| {
        let request = account.run_of(&owner.user_name, Method::GET, "f");
        send(request.header("x-cloudserve-version", version.to_owned()))
    };
    assert_eq!(call(&owner, "1").await.expect(200).text(), "none 1");
    assert_eq!(call(&owner, "2").await.expect(200).text(), "none 2");
    assert_eq!(call(&owner, "7").await.expect(404).code(), "version_not_found");
    let key = owner.showing(&owner.key(&["invoke"]).await);
    assert_eq!(call(&key, "1").await.expect(200).text(), "none 1");
    for stranger in [&other, &owner.showing("")] {
        assert_eq!(call(stranger, "1").await.expect(403).code(), "forbidden");
    }
}

#[tokio::test]
async fn an_environment_is_changed_without_a_build() {
    let owner = server().await.register().await;
    let env = json!({ "GREETING": "hello", "OTHER": "a value that nobody sees" });
    let id = owner.deploy(&deploy("f", "f.mjs", &code(1)).with("env", env)).await.id;
    let path = format!("/api/function/{id}/env");
    let shown = owner.get(&path).await.expect(200);
    assert_eq!(shown.json()["names"], json!(["GREETING", "OTHER"]));
    assert!(!shown.text().contains("hello") && !shown.text().contains("nobody"));

    let change = |body: Value| send(owner.api(Method::PATCH, &path).json(&body));
    let changed = change(json!({ "set": { "GREETING": "bye" }, "unset": ["OTHER"] })).await;
    let changed = changed.expect(200).json();
    assert_eq!((&changed["names"], &changed["version"]), (&json!(["GREETING"]), &json!(2)));
    assert_eq!((&changed["status"], &changed["activeVersion"]), (&json!("active"), &json!(2)));
    assert_eq!(owner.call("f").await.expect(200).text(), "bye 1");
    let list = versions(&owner, &id).await;
    assert_eq!(list[0]["bundleHash"], list[1]["bundleHash"]);
    // The version before has the environment it had.
    owner.post(&format!("/api/function/{id}/rollback"), &json!({ "version": 1 })).await.expect(200);
    assert_eq!(owner.call("f").await.expect(200).text(), "hello 1");
    assert_eq!(owner.get(&path).await.json()["names"], json!(["GREETING", "OTHER"]));
    // A change starts from what is served.
    change(json!({ "set": { "OTHER": "x" } })).await.expect(200);
    assert_eq!(owner.call("f").await.expect(200).text(), "hello 1");

    for body in [
        json!({}),
        json!({ "set": {} }),
        json!({ "set": { "1BAD": "x" } }),
        json!({ "set": { "A": 1 } }),
        json!({ "set": ["A"] }),
        json!({ "unset": "A" }),
        json!({ "GREETING": "x" }),
        json!({ "set": { "BIG": "x".repeat(65_536) } }),
    ] {
        let answer = change(body).await.expect(422);
        assert_eq!(answer.code(), "validation_error");
    }
    assert_eq!(owner.call("f").await.expect(200).text(), "hello 1");
}

#[tokio::test]
async fn an_environment_that_breaks_the_function_is_not_served() {
    let owner = server().await.register().await;
    let code = "if (process.env.BROKEN) throw new Error('no'); export default () => 'fine'";
    let id = owner.deploy(&deploy("f", "f.mjs", code)).await.id;
    let change = owner.api(Method::PATCH, &format!("/api/function/{id}/env"));
    let changed = send(change.json(&json!({ "set": { "BROKEN": "1" } }))).await.expect(200).json();
    assert_eq!(changed["status"], "failed");
    assert_eq!(changed["deployError"]["code"], "startup_error");
    assert_eq!(changed["activeVersion"], 1);
    assert_eq!(owner.call("f").await.expect(200).text(), "fine");
}

#[tokio::test]
async fn old_versions_go_with_what_only_they_refer_to() {
    let server = TestServer::start_with_file("[limits]\nversions_kept = 2\n").await;
    let owner = server.register().await;
    let mut project = deploy("f", "f.mjs", "");
    project.0 = json!({
        "name": "f", "entry": "f.mjs", "files": { "f.mjs": code(1), "data.txt": "read by nobody" }
    });
    let first = owner.deploy(&project).await;
    let id = &first.id;
    let objects = server.data_dir().join("objects").join(id);
    let exists = |view: &Value, field: &str| {
        let path = view[field].as_str().unwrap().strip_prefix(id.as_str()).unwrap();
        objects.join(path.trim_start_matches('/')).exists()
    };
    assert!(exists(&first.view, "bundlePath") && exists(&first.view, "sourcePath"));
    let bundle = server.data_dir().join("objects").join(first.view["bundlePath"].as_str().unwrap());
    let assets = bundle.with_file_name("assets.tar.gz");
    assert!(assets.exists());
    owner.deploy(&deploy("f", "f.mjs", &code(2))).await;
    let rollback = format!("/api/function/{id}/rollback");
    owner.post(&rollback, &json!({ "version": 1 })).await.expect(200);
    // What is served stays, however old.
    send(owner.api(Method::PATCH, &format!("/api/function/{id}/env")).json(&json!({
        "set": { "GREETING": "hello" }
    })))
    .await
    .expect(200);
    // Version 3 is version 1 with another environment: its objects are the same.
    owner.deploy(&deploy("f", "f.mjs", &code(4))).await;
    wait_for("version 1 to go", || async {
        let numbers: Vec<_> =
            versions(&owner, id).await.iter().map(|v| v["version"].clone()).collect();
        (numbers == [4, 3]).then_some(())
    })
    .await;
    assert!(exists(&first.view, "bundlePath") && exists(&first.view, "sourcePath"));
    assert!(assets.exists());
    owner.post(&rollback, &json!({ "version": 3 })).await.expect(200);
    assert_eq!(owner.call("f").await.expect(200).text(), "hello 1");
    for version in 5..=6 {
        owner.deploy(&deploy("f", "f.mjs", &code(version))).await;
    }
    wait_for("its objects to go", || async {
        let any = exists(&first.view, "bundlePath") || exists(&first.view, "sourcePath");
        (!any && !assets.exists()).then_some(())
    })
    .await;
    assert_eq!(owner.call("f").await.expect(200).text(), "hello 6");
}
