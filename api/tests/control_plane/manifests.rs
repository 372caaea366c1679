//! What a deploy says of packages, and for how long that holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Plane, version};

#[tokio::test]
async fn a_lock_file_stays_with_the_dependencies_it_is_of() {
    let plane = Plane::start();
    plane.provide_tree(&[], &[("left-pad/package.json", "{}")]).await;
    let token = plane.register("ada").await;
    let lock = json!({ "lockfileVersion": 3, "packages": {} }).to_string();
    let mut body = version(1);
    body["dependencies"] = json!({ "left-pad": "^1" });
    body["packageLock"] = json!(lock);
    let first = plane.deploy(&token, &body).await;
    let id = first["id"].as_str().unwrap();
    let kept = async || {
        let functions = &plane.stores.functions;
        let owner = first["user"].as_str().unwrap().parse().unwrap();
        let record = functions.function(owner, id.parse().unwrap()).await.unwrap().unwrap();
        record.latest.source.package_lock.is_some()
    };
    assert!(kept().await);
    let update = async |body: Value| {
        plane.call(&token, "PUT", &format!("/api/function/{id}"), &body).await.expect(202);
    };
    // As the dashboard says it, whatever was edited.
    let code = "export default 2";
    let files = json!({ "f.mjs": code });
    let dependencies = json!({ "left-pad": "^1" });
    update(json!({ "files": files, "entry": "f.mjs", "dependencies": dependencies })).await;
    assert!(kept().await);
    update(json!({ "code": code, "dependencies": { "left-pad": "^2" } })).await;
    assert!(!kept().await);

    // A project has its lock file beside its manifest.
    let manifest = json!({ "dependencies": { "left-pad": "^2" } }).to_string();
    update(json!({ "packageJson": manifest, "packageLock": lock })).await;
    assert!(kept().await);
    update(json!({ "packageJson": manifest })).await;
    assert!(!kept().await);
}

#[tokio::test]
async fn all_that_a_manifest_says_of_packages_is_asked_for() {
    let plane = Plane::start();
    plane.provide_tree(&[], &[("left-pad/package.json", "{}")]).await;
    let token = plane.register("ada").await;
    let asked = || plane.sandbox.specs.lock().last().unwrap().clone();
    let mut body = version(1);
    body["packageJson"] = json!({
        "dependencies": { "left-pad": "^1" },
        "optionalDependencies": { "fsevents": "^2" },
        "peerDependencies": { "react": "^19" },
        "overrides": { "x": "$react" },
    });
    plane.deploy(&token, &body).await;
    let spec = asked();
    let of = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    assert_eq!(spec.dependencies, of(&[("left-pad", "^1"), ("react", "^19")]));
    assert_eq!(spec.optional_dependencies, of(&[("fsevents", "^2")]));
    assert_eq!(spec.overrides.as_deref(), Some(r#"{"x":"^19"}"#));
    // It stays until packages are named anew.
    plane.deploy(&token, &version(2)).await;
    assert_eq!(asked(), spec);
    let mut named = version(3);
    named["dependencies"] = json!({ "left-pad": "^2" });
    plane.deploy(&token, &named).await;
    assert_eq!(asked().dependencies, of(&[("left-pad", "^2")]));
    assert!(asked().optional_dependencies.is_empty() && asked().overrides.is_none());

    body["packageJson"] = json!({ "overrides": { "x": "github:u/r" } });
    let refused = plane.call(&token, "POST", "/api/function/deploy", &body).await.expect(422);
    assert!(refused.text.contains("overrides"), "{}", refused.text);
}
