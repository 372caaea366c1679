//! npm packages: one tree for equal sets, inlined where that is safe, loaded where it is not.

use serde_json::{Value, json};

use crate::support::{TestServer, deploy, server};

const CHUNK: &str = "
import chunk from 'lodash/chunk.js';
export default () => chunk([1, 2, 3], 2);
";

#[tokio::test]
async fn a_second_user_gets_the_same_tree_and_no_npm_runs() {
    // A server of its own: its npm calls are counted.
    let server = TestServer::start().await;
    let first = server.register().await;
    let using = |version: &str| {
        deploy("chunk", "chunk.mjs", CHUNK).with("dependencies", json!({ "lodash": version }))
    };
    let built = first.deploy(&using("4.17.21")).await.view;
    assert_eq!(built["dependencyCache"], "miss");
    let npm_calls = server.npm_calls();
    assert!(!npm_calls.is_empty());
    assert!(npm_calls.iter().all(|call| call.contains("--ignore-scripts")), "{npm_calls:#?}");

    let second = server.register().await;
    let reused = second.deploy(&using("4.17.21")).await.view;
    assert_eq!(reused["dependencyCache"], "hit");
    assert_eq!(reused["depHash"], built["depHash"]);
    assert_eq!(server.npm_calls(), npm_calls, "a hit runs no npm");
    assert_eq!(second.call("chunk").await.expect(200).json(), json!([[1, 2], [3]]));

    let other = second.deploy(&using("4.17.20")).await.view;
    assert_ne!(other["depHash"], built["depHash"]);
    assert_eq!(other["dependencyCache"], "miss");
    assert_eq!(second.call("chunk").await.expect(200).json(), json!([[1, 2], [3]]));
}

#[tokio::test]
async fn ranges_that_resolve_alike_share_a_tree() {
    let owner = server().await.register().await;
    let using = |name: &str, version: &str| {
        deploy(name, "chunk.mjs", CHUNK).with("dependencies", json!({ "lodash": version }))
    };
    let exact = owner.deploy(&using("exact", "4.17.15")).await.view;
    let range = owner.deploy(&using("range", ">=4.17.14 <4.17.16")).await.view;
    assert_eq!(exact["depHash"], range["depHash"]);
    assert_eq!(range["dependencyCache"], "hit");
}

#[tokio::test]
async fn packages_left_out_of_the_bundle_are_required_at_run_time() {
    let owner = server().await.register().await;
    for (name, filename, code) in [
        ("esm", "f.mjs", CHUNK),
        (
            "cjs",
            "f.cjs",
            "const _ = require('lodash'); exports.handler = async () => _.chunk([1, 2, 3], 2);",
        ),
    ] {
        let external = deploy(name, filename, code)
            .with("dependencies", json!({ "lodash": "4.17.21" }))
            .with("external", json!(["lodash"]));
        owner.deploy(&external).await;
        assert_eq!(owner.call(name).await.expect(200).json(), json!([[1, 2], [3]]), "{name}");
    }
}

#[tokio::test]
async fn what_the_bundler_cannot_see_is_found_at_run_time() {
    let owner = server().await.register().await;
    let code = "
        const names = ['lod' + 'ash'];
        module.exports = () => require(names[0]).chunk([1, 2, 3], 2);
    ";
    let dynamic = deploy("dynamic", "f.cjs", code)
        .with("dependencies", json!({ "lodash": "4.17.21" }))
        .with("external", json!(["lodash"]));
    owner.deploy(&dynamic).await;
    assert_eq!(owner.call("dynamic").await.expect(200).json(), json!([[1, 2], [3]]));
}

#[tokio::test]
async fn a_lock_file_is_honoured() {
    let owner = server().await.register().await;
    let lock = json!({
        "name": "f",
        "lockfileVersion": 3,
        "packages": {
            "": { "dependencies": { "lodash": "^4.17.0" } },
            "node_modules/lodash": {
                "version": "4.17.20",
                "integrity": "sha512-PlhdFcillOINfeV7Ni6oF1TAEayyZBoZ8bcshTHqOYJYlrqzRK5hagpagky5o4HfCzzd1TRkXPMFq6cKk9rGmA==",
            },
        },
    });
    let locked = deploy("locked", "f.mjs", CHUNK)
        .with("dependencies", json!({ "lodash": "^4.17.0" }))
        .with("packageLock", json!(lock.to_string()));
    let exact =
        deploy("exact", "f.mjs", CHUNK).with("dependencies", json!({ "lodash": "4.17.20" }));
    let (locked, exact) = (owner.deploy(&locked).await, owner.deploy(&exact).await);
    assert_eq!(locked.view["depHash"], exact.view["depHash"]);
    assert_eq!(owner.call("locked").await.expect(200).json(), json!([[1, 2], [3]]));
}

#[tokio::test]
async fn a_lock_file_has_nothing_fetched_but_packages_of_the_registry() {
    // A server of its own: its npm calls are counted.
    let server = TestServer::start().await;
    let owner = server.register().await;
    let integrity = format!("sha512-{}==", "A".repeat(86));
    let a = |fields: Value| {
        let mut package = json!({ "version": "1.0.0", "integrity": integrity });
        package.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        package
    };
    let git = "github:attacker/repo#0123456789abcdef0123456789abcdef01234567";
    for (package, told) in [
        (a(json!({ "dependencies": { "x": git } })), "a needs x@github:attacker/repo"),
        (a(json!({ "optionalDependencies": { "x": "git+file:///x" } })), "a needs x@git+file:"),
        (a(json!({ "peerDependencies": { "x": "http://10.0.0.1/x.tgz" } })), "a needs x@http:"),
        (a(json!({ "dependencies": { "x": "file:../x" } })), "a needs x@file:"),
        (a(json!({ "version": git })), "does not come from the registry"),
        (a(json!({ "resolved": "git+ssh://git@example.org/a.git#1" })), "does not come from"),
    ] {
        let lock = json!({
            "lockfileVersion": 3,
            "packages": { "": { "dependencies": { "a": "1.0.0" } }, "node_modules/a": package },
        });
        let locked = deploy("locked", "f.mjs", "export default 1")
            .with("dependencies", json!({ "a": "1.0.0" }))
            .with("packageLock", json!(lock.to_string()));
        let error = owner.deploy_failing(&locked).await;
        assert_eq!(error["code"], "dependency_error", "{error}");
        assert!(error["message"].as_str().unwrap().contains(told), "{told}: {error}");
    }
    assert_eq!(server.npm_calls(), Vec::<String>::new(), "npm was not even started");
}
