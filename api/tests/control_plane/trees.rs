//! Dependency trees that go, and what becomes of deploys that need them.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::ids::{DepHash, UserId};
use cloudserve_store::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::leftovers::{Curse, left};
use crate::support::Plane;

const HOUR: Duration = Duration::from_hours(1);

/// A function that needs its tree when it runs.
fn function() -> Value {
    json!({
        "name": "f",
        "filename": "f.mjs",
        "code": "import x from 'x'; export default () => x;",
        "dependencies": { "x": "^1" },
        "external": ["x"],
    })
}

/// Makes a tree with this text in it the one of every dependency set.
async fn provide(plane: &Plane, text: &str) -> DepHash {
    let module = format!("module.exports = '{text}';");
    plane.provide_tree(&[], &[("x/package.json", "{}"), ("x/index.js", &module)]).await
}

/// What is stored of a tree.
async fn stored(plane: &Plane, hash: &DepHash) -> (bool, bool) {
    let [metadata, archive] = objects(hash);
    let artifacts = &plane.stores.artifacts;
    (artifacts.exists(&metadata).await.unwrap(), artifacts.exists(&archive).await.unwrap())
}

fn objects(hash: &DepHash) -> [ArtifactKey; 2] {
    [
        ArtifactKey::DependencyMetadata { hash: hash.clone() },
        ArtifactKey::DependencyTree { hash: hash.clone() },
    ]
}

fn resolution(of: &str) -> ArtifactKey {
    ArtifactKey::Resolution { spec_hash: of.repeat(32) }
}

/// Begins to remove a tree that no version names.
async fn removal(plane: &Plane, hash: &DepHash, lease: Duration) -> Timestamp {
    let look = || plane.stores.trees.look_at_tree(hash, Duration::ZERO, lease);
    assert_eq!(look().await.unwrap(), None);
    look().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_deploy_waits_while_its_tree_is_removed_and_has_it_stored_again() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let hash = provide(&plane, "").await;
    let until = removal(&plane, &hash, HOUR).await;
    let (body, today) = (function(), Timestamp::now().day());
    let removed = async {
        while plane.sandbox.specs.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Without the wait it would be served within this.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(plane.sandbox.loaded.lock().len(), 0);
        for key in objects(&hash) {
            plane.stores.artifacts.delete(&key).await.unwrap();
        }
        plane.stores.trees.forget_tree(&hash, until).await.unwrap();
    };
    let (view, ()) = tokio::join!(plane.deploy(&token, &body), removed);
    assert_eq!(view["status"], "active", "{view:#}");
    assert_eq!(plane.sandbox.specs.lock().len(), 2);
    assert_eq!(stored(&plane, &hash).await, (true, true));
    // It was added once.
    let me = plane.get(&token, "/api/auth/me").await.expect(200).body;
    let ada: UserId = me["user"]["id"].as_str().unwrap().parse().unwrap();
    let [_, archive] = objects(&hash);
    let archive = plane.stores.artifacts.get(&archive, 1 << 20).await.unwrap();
    let added = plane.stores.functions.trees_added(ada, today).await.unwrap();
    assert_eq!(added, archive.len() as u64);
    // It is in use from then on.
    let look = plane.stores.trees.look_at_tree(&hash, Duration::ZERO, HOUR);
    assert_eq!(look.await.unwrap(), None);
}

#[tokio::test]
async fn a_version_whose_build_is_known_is_built_again_if_its_tree_is_gone() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let hash = provide(&plane, "").await;
    let view = plane.deploy(&token, &function()).await;
    let path = format!("/api/function/{}/env", view["id"].as_str().unwrap());
    for (n_built, is_gone) in [(1, false), (2, true)] {
        if is_gone {
            for key in objects(&hash) {
                plane.stores.artifacts.delete(&key).await.unwrap();
            }
        }
        let set = json!({ "set": { "A": n_built.to_string() } });
        let view = plane.call(&token, "PATCH", &path, &set).await.expect(200).body;
        assert_eq!(view["status"], "active", "{view:#}");
        assert_eq!(plane.sandbox.specs.lock().len(), n_built);
        assert_eq!(plane.sandbox.loaded.lock().last().unwrap().runtime_deps, Some(hash.clone()));
        assert_eq!(stored(&plane, &hash).await, (true, true));
    }
}

#[tokio::test]
async fn trees_that_no_version_names_go_in_the_end() {
    let data = Arc::new(TempDir::new().unwrap());
    let mut plane = Plane::at(data, |options| (options.tree_kept_s, options.tree_look_s) = (1, 0));
    plane.start_deployer();
    let token = plane.register("ada").await;
    let served = provide(&plane, "served").await;
    plane.deploy(&token, &function()).await;
    plane.stop_deployer().await;

    let unused = provide(&plane, "unused").await;
    assert_eq!(plane.stores.trees.look_at_tree(&unused, HOUR, HOUR).await.unwrap(), None);
    // As a server leaves one that is killed while it removes it.
    let half = provide(&plane, "half removed").await;
    removal(&plane, &half, Duration::from_millis(1)).await;
    plane.stores.artifacts.delete(&objects(&half)[0]).await.unwrap();
    // Nobody has looked at this one.
    let unknown = provide(&plane, "unknown").await;
    left(&plane, &[resolution("01")], HOUR * 24 * 31).await;
    left(&plane, &[resolution("02")], HOUR * 24 * 29).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    plane.start_deployer();
    // What is looked at last.
    let is_there = async |of: &str| plane.stores.artifacts.exists(&resolution(of)).await.unwrap();
    for _ in 0..500 {
        if !is_there("01").await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_there("01").await && is_there("02").await);
    for (hash, is_left) in [(&unused, false), (&half, false), (&served, true), (&unknown, true)] {
        assert_eq!(stored(&plane, hash).await, (is_left, is_left), "{hash}");
    }
    // It is not known any more.
    let look = plane.stores.trees.look_at_tree(&unused, Duration::ZERO, HOUR);
    assert_eq!(look.await.unwrap(), None);
}

#[tokio::test]
async fn what_could_not_be_removed_comes_up_again_after_all_else() {
    let data = Arc::new(TempDir::new().unwrap());
    let mut plane = Plane::over(
        data,
        |stores| Curse::Busy.over(stores),
        |options| (options.tree_kept_s, options.tree_look_s) = (1, 0),
    );
    left(&plane, &[resolution("01"), resolution("02")], HOUR * 24 * 31).await;
    // In the order in which they are to go. It is looked for some when a deployer starts.
    for (of, is_first_left) in [("02", true), ("01", false)] {
        for _ in 0..50 {
            plane.start_deployer();
            tokio::time::sleep(Duration::from_millis(100)).await;
            plane.stop_deployer().await;
            if !plane.stores.artifacts.exists(&resolution(of)).await.unwrap() {
                break;
            }
        }
        let there = ["01", "02"].map(|of| {
            plane.data.path().join("data/objects").join(resolution(of).to_string()).exists()
        });
        assert_eq!(there, [is_first_left, false]);
    }
}
