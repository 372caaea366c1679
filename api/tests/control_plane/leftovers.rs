//! What deploys leave in storage that did not come to be served.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_api::ApiOptions;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore, ListedObject};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::{BundleHash, FunctionId, SourceHash, UserId};
use cloudserve_store::function::{DeployError, NewVersion, Sweep};
use cloudserve_store::{DataDirLock, Stores, open_embedded, open_embedded_exclusive};
use futures::future::join_all;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::Plane;

/// A project with a file that is read when it runs.
fn project(number: u32) -> Value {
    json!({
        "name": "f",
        "entry": "f.mjs",
        "files": { "f.mjs": format!("export default {number}"), "data.txt": number.to_string() },
    })
}

fn failure() -> Fault {
    Fault::new(FaultClass::StartupError, "the module threw")
}

fn n_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { n_files(&path) } else { 1 }).sum()
}

/// Waits until a function has so many objects of bundles, and so many sources.
async fn wait_for(plane: &Plane, id: &str, bundles: usize, sources: usize) {
    let objects = plane.data.path().join("data/objects").join(id);
    let count = || (n_files(&objects.join("bundle")), n_files(&objects.join("src")));
    for _ in 0..500 {
        if count() == (bundles, sources) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there are {:?} objects of bundles and sources", count());
}

async fn numbers(plane: &Plane, token: &str, id: &str) -> Vec<u64> {
    let path = format!("/api/function/{id}/versions");
    let listed = plane.get(token, &path).await.expect(200).body;
    listed.as_array().unwrap().iter().map(|version| version["version"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_function_whose_deploys_all_fail_keeps_few_of_them() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let mut id = String::new();
    for number in 1..=25 {
        plane.sandbox.faults.lock().push(failure());
        let view = plane.deploy(&token, &project(number)).await;
        assert_eq!(view["deployError"]["code"], "startup_error", "{view:#}");
        view["id"].as_str().unwrap().clone_into(&mut id);
    }
    wait_for(&plane, &id, 0, 5).await;
    assert_eq!(numbers(&plane, &token, &id).await, [25, 24, 23, 22, 21]);

    // The last one can be deployed again; of what is served nothing goes.
    let again = format!("/api/function/{id}/redeploy?wait=true");
    let served = plane.call(&token, "POST", &again, &Value::Null).await.expect(200).body;
    assert_eq!(served["status"], "active", "{served:#}");
    for number in 27..=45 {
        plane.sandbox.faults.lock().push(failure());
        plane.deploy(&token, &project(number)).await;
    }
    wait_for(&plane, &id, 3, 6).await;
    assert_eq!(numbers(&plane, &token, &id).await, [45, 44, 43, 42, 41, 26]);
    assert!(plane.bundle(&served).await.contains("25"));
    // Nor of what fails and is the same.
    plane.sandbox.faults.lock().push(failure());
    plane.deploy(&token, &project(25)).await;
    wait_for(&plane, &id, 3, 6).await;
}

#[tokio::test]
async fn what_fails_while_others_wait_goes_as_well() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    plane.sandbox.faults.lock().extend((0..6).map(|_| failure()));
    let projects: Vec<Value> = (1..=6).map(project).collect();
    let views = join_all(projects.iter().map(|body| plane.deploy(&token, body))).await;
    assert!(views.iter().all(|view| view["status"] == "failed"), "{views:#?}");
    wait_for(&plane, views[0]["id"].as_str().unwrap(), 0, 5).await;
}

#[tokio::test]
async fn sources_of_deploys_that_are_not_accepted_do_not_stay() {
    let set = |options: &mut ApiOptions| options.deploys_queued_per_user = 3;
    // Nobody is at the queue.
    let plane = Plane::at(Arc::new(TempDir::new().unwrap()), set);
    let token = plane.register("ada").await;
    let path = "/api/function/deploy";
    let first = plane.call(&token, "POST", path, &project(0)).await.expect(202).body;
    let projects: Vec<Value> = (1..=8).map(project).collect();
    let calls = projects.iter().map(|body| plane.call(&token, "POST", path, body));
    let answers = join_all(calls).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((accepted, refused), (2, 6));
    wait_for(&plane, first["id"].as_str().unwrap(), 0, 3).await;
}

#[tokio::test]
async fn what_may_remain_of_a_function_is_known_before_it_is_there_and_when_it_is_gone() {
    let data = Arc::new(TempDir::new().unwrap());
    let plane = Plane::over(data, |stores| Curse::Full.over(stores), |_| {});
    let remains = async |plane: &Plane| plane.stores.functions.remains(Duration::ZERO).await;
    let token = plane.register("ada").await;
    assert_eq!(remains(&plane).await.unwrap(), None);
    plane.call(&token, "POST", "/api/function/deploy", &project(1)).await.expect(503);
    assert!(remains(&plane).await.unwrap().is_some(), "some of it may be stored");

    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &project(1)).await;
    assert_eq!(remains(&plane).await.unwrap(), None);
    let id: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/api/function/{id}");
    plane.call(&token, "DELETE", &path, &Value::Null).await.expect(204);
    assert_eq!(remains(&plane).await.unwrap(), Some(id));
    wait_for(&plane, &id.to_string(), 0, 0).await;
}

async fn wait_until(is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be so");
}

/// A sweep of the function that another server has begun.
async fn swept_by_another(plane: &Plane, id: FunctionId) -> Sweep {
    let sweep = Sweep {
        holder: "another".to_owned(),
        lease: Duration::from_hours(1),
        stored: vec![BundleHash::of(b"nobody's")],
        sources: Vec::new(),
    };
    assert!(plane.stores.functions.prune(id, 20, &sweep).await.unwrap().is_swept);
    sweep
}

#[tokio::test]
async fn nothing_is_built_while_another_server_removes_objects() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &project(1)).await;
    let id: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
    let functions = &plane.stores.functions;
    let sweep = swept_by_another(&plane, id).await;

    let path = "/api/function/deploy";
    plane.call(&token, "POST", path, &project(2)).await.expect(202);
    let status = async || {
        let view = plane.get(&token, &format!("/api/function/{id}")).await.expect(200).body;
        view["status"].as_str().unwrap().to_owned()
    };
    while status().await == "pending" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Without the wait it would be served within these.
    for _ in 0..50 {
        assert_eq!(status().await, "deploying");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    wait_for(&plane, &id.to_string(), 3, 2).await;
    assert_eq!(plane.sandbox.loaded.lock().len(), 1);
    functions.end_sweep(id, &sweep.holder).await.unwrap();
    while status().await == "deploying" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status().await, "active");
    wait_for(&plane, &id.to_string(), 6, 2).await;
}

/// The version whose environment was changed may have been built again after it was read.
#[tokio::test]
async fn no_other_environment_is_served_while_its_bundle_may_be_removed() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &project(1)).await;
    let id: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
    let functions = &plane.stores.functions;
    let sweep = swept_by_another(&plane, id).await;

    let (path, set) = (format!("/api/function/{id}/env"), json!({ "set": { "A": "1" } }));
    let change = plane.call(&token, "PATCH", &path, &set);
    let end = async {
        // Without the wait it would be loaded within this.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(plane.sandbox.loaded.lock().len(), 1);
        functions.end_sweep(id, &sweep.holder).await.unwrap();
    };
    let (changed, ()) = tokio::join!(change, end);
    assert_eq!(changed.expect(200).body["activeVersion"], 2);
    assert_eq!(plane.sandbox.loaded.lock().len(), 2);
}

#[tokio::test]
async fn a_version_that_went_while_it_was_in_work_takes_nothing_along() {
    let mut plane = Plane::start_with(|options| options.deploys_in_parallel = 1);
    let token = plane.register("ada").await;
    let served = plane.deploy(&token, &project(1)).await;
    let id: FunctionId = served["id"].as_str().unwrap().parse().unwrap();
    let me = plane.get(&token, "/api/auth/me").await.expect(200).body;
    let ada: UserId = me["user"]["id"].as_str().unwrap().parse().unwrap();
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    plane.call(&token, "POST", "/api/function/deploy", &project(2)).await.expect(202);
    wait_until(|| plane.sandbox.loaded.lock().len() == 2).await;

    // Other servers give it up, and so many after it that it is not kept.
    let functions = &plane.stores.functions;
    let fail = async |version| {
        let error = DeployError { code: "internal".to_owned(), message: String::new() };
        functions.fail(id, version, error).await.unwrap();
    };
    fail(2).await;
    for number in 3..=7 {
        let latest = functions.function(ada, id).await.unwrap().unwrap();
        let new = NewVersion {
            function_id: id,
            user_id: ada,
            name: latest.function.name,
            version: number,
            of_served: None,
            visibility: None,
            source: latest.latest.source,
            source_hash: latest.latest.source_hash,
            env: latest.latest.env,
            limits: latest.latest.limits,
            built: None,
        };
        functions.accept(new).await.unwrap();
        fail(number).await;
    }
    let pruned = functions.prune(id, 20, &Sweep::default()).await.unwrap();
    assert_eq!(pruned.removed.iter().map(|gone| gone.version).collect::<Vec<_>>(), [2]);
    gate.notify_one();
    plane.stop_deployer().await;
    assert!(plane.bundle(&served).await.contains('1'));
}

#[tokio::test]
async fn old_versions_go_while_others_wait() {
    let plane = Plane::start_with(|options| {
        options.deploys_in_parallel = 2;
        options.limits.versions_kept = 2;
    });
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &project(1)).await;
    let id = view["id"].as_str().unwrap().to_owned();
    // One is in work all the time, and was accepted before all others.
    let gate = Arc::new(Notify::new());
    *plane.sandbox.gate.lock() = Some(gate.clone());
    plane.call(&token, "POST", "/api/function/deploy", &project(2)).await.expect(202);
    wait_until(|| plane.sandbox.loaded.lock().len() == 2).await;
    *plane.sandbox.gate.lock() = None;
    for number in 3..=8 {
        let view = plane.deploy(&token, &project(number)).await;
        assert_eq!(view["status"], "active", "{view:#}");
    }
    wait_for(&plane, &id, 9, 3).await;
    assert_eq!(numbers(&plane, &token, &id).await, [8, 7, 2]);

    // It has all that it made: it ends, and is too old then.
    gate.notify_one();
    wait_for(&plane, &id, 6, 2).await;
    assert_eq!(numbers(&plane, &token, &id).await, [8, 7]);
    assert_eq!(plane.sandbox.loaded.lock().len(), 8, "it was not tried again");
}

/// Stores objects as servers do that are killed at once, so long ago.
pub(crate) async fn left(plane: &Plane, keys: &[ArtifactKey], age: Duration) {
    for key in keys {
        plane.stores.artifacts.put(key, Bytes::from_static(b"1")).await.unwrap();
        let path = plane.data.path().join("data/objects").join(key.to_string());
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
}

#[tokio::test]
async fn what_killed_servers_have_left_of_a_function_goes_when_it_is_old() {
    let mut plane = Plane::start();
    let token = plane.register("ada").await;
    let first = plane.deploy(&token, &project(1)).await;
    let served = plane.deploy(&token, &project(2)).await;
    let function: FunctionId = served["id"].as_str().unwrap().parse().unwrap();
    let id = function.to_string();
    wait_for(&plane, &id, 6, 2).await;
    plane.stop_deployer().await;

    let source = |version, of: &[u8], name: &str| {
        let path = format!("{}/{name}", SourceHash::of(of));
        ArtifactKey::Source { function, version, path }
    };
    let bundle = |of: &[u8]| {
        let hash = BundleHash::of(of);
        [
            ArtifactKey::Bundle { function, hash: hash.clone() },
            ArtifactKey::SourceMap { function, hash },
        ]
    };
    let (hours, minutes) = (Duration::from_hours(2), Duration::from_mins(50));
    // Everything that is referred to is old, too.
    let mut directories = vec![plane.data.path().join("data/objects").join(&id)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::now() - hours).unwrap();
            }
        }
    }
    let old = [source(3, b"old", "f.mjs"), source(4, b"old", "source.tar.gz")];
    left(&plane, &old, hours).await;
    left(&plane, &bundle(b"old"), hours).await;
    // What may be about to be accepted, and what is of another shape.
    let young = source(3, b"young", "f.mjs");
    left(&plane, std::slice::from_ref(&young), minutes).await;
    let unknown = ArtifactKey::Source { function, version: 1, path: "f.mjs".to_owned() };
    left(&plane, std::slice::from_ref(&unknown), hours).await;
    wait_for(&plane, &id, 8, 6).await;

    plane.start_deployer();
    wait_for(&plane, &id, 6, 4).await;
    for key in [&young, &unknown, &ArtifactKey::PackageJson { function }] {
        assert!(plane.stores.artifacts.exists(key).await.unwrap(), "{key}");
    }
    assert!(plane.bundle(&first).await.contains('1'));
    assert!(plane.bundle(&served).await.contains('2'));
    let again = format!("/api/function/{id}/redeploy?wait=true");
    let view = plane.call(&token, "POST", &again, &Value::Null).await.expect(200).body;
    assert_eq!(view["status"], "active", "{view:#}");
}

#[tokio::test]
async fn a_source_that_is_being_removed_is_stored_again() {
    let plane = Plane::start();
    let token = plane.register("ada").await;
    let view = plane.deploy(&token, &json!({ "name": "f", "code": "export default 1" })).await;
    let function: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
    // As a server has left it that was killed before version 2 was accepted.
    let code = "export default 2";
    let versions = plane.data.path().join("data/objects").join(function.to_string()).join("src");
    let stored = std::fs::read_dir(versions.join("1")).unwrap().next().unwrap().unwrap().path();
    let name = std::fs::read_dir(stored).unwrap().next().unwrap().unwrap().file_name();
    let path = format!("{}/{}", SourceHash::of(code.as_bytes()), name.to_str().unwrap());
    let key = ArtifactKey::Source { function, version: 2, path };
    left(&plane, std::slice::from_ref(&key), Duration::from_hours(2)).await;
    let sweep = Sweep {
        holder: "another".to_owned(),
        lease: Duration::from_hours(1),
        sources: vec![SourceHash::of(code.as_bytes())],
        ..Sweep::default()
    };
    let functions = &plane.stores.functions;
    assert!(functions.prune(function, 20, &sweep).await.unwrap().is_swept);

    let body = json!({ "name": "f", "code": code });
    let removal = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let view = plane.get(&token, &format!("/api/function/{function}")).await.body;
            assert_eq!(view["version"], 1, "{view:#}");
        }
        // Listed before it was stored again.
        plane.stores.artifacts.delete(&key).await.unwrap();
        functions.end_sweep(function, &sweep.holder).await.unwrap();
    };
    let (view, ()) = tokio::join!(plane.deploy(&token, &body), removal);
    assert_eq!(view["status"], "active", "{view:#}");
}

/// What is wrong with a store of objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curse {
    /// There is no room for any.
    Full,
    /// The first that is to be removed is not.
    Busy,
    /// The first that is to be removed makes whoever removes it panic.
    Panic,
    /// What removes one never ends.
    Stuck,
}

struct Cursed {
    inner: Arc<dyn ArtifactStore>,
    curse: Curse,
    has_struck: AtomicBool,
}

impl Curse {
    pub(crate) fn over(self, stores: Stores) -> Stores {
        let (inner, has_struck) = (stores.artifacts, AtomicBool::new(false));
        Stores { artifacts: Arc::new(Cursed { inner, curse: self, has_struck }), ..stores }
    }
}

impl Cursed {
    async fn strike(&self) {
        match self.curse {
            Curse::Full | Curse::Busy => {}
            Curse::Panic => assert!(self.has_struck.swap(true, Relaxed), "as it should here"),
            Curse::Stuck => std::future::pending().await,
        }
    }
}

#[async_trait]
impl ArtifactStore for Cursed {
    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<(), ArtifactError> {
        if self.curse == Curse::Full {
            let (operation, source) = ("write", "no room".into());
            return Err(ArtifactError::Backend { operation, key: key.to_string(), source });
        }
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &ArtifactKey, file: &Path) -> Result<(), ArtifactError> {
        self.inner.put_file(key, file).await
    }

    async fn get(&self, key: &ArtifactKey, max_bytes: u64) -> Result<Bytes, ArtifactError> {
        self.inner.get(key, max_bytes).await
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        self.inner.stream(key).await
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        self.inner.exists(key).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        if self.curse == Curse::Busy && !self.has_struck.swap(true, Relaxed) {
            let (operation, source) = ("delete", "not now".into());
            return Err(ArtifactError::Backend { operation, key: key.to_string(), source });
        }
        self.strike().await;
        self.inner.delete(key).await
    }

    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError> {
        if self.curse == Curse::Stuck {
            self.strike().await;
        }
        self.inner.delete_function(function).await
    }

    fn list(
        &self,
        function: FunctionId,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        self.inner.list(function)
    }

    fn list_dependencies(
        &self,
        after: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        self.inner.list_dependencies(after)
    }
}

#[tokio::test]
async fn a_panic_leaves_the_queue_with_somebody_at_it() {
    let data = Arc::new(TempDir::new().unwrap());
    let mut plane = Plane::over(
        data,
        |stores| Curse::Panic.over(stores),
        |options| {
            (options.deploys_in_parallel, options.deploy_wait_ms) = (1, 20_000);
        },
    );
    plane.start_deployer();
    let token = plane.register("ada").await;
    plane.sandbox.faults.lock().push(failure());
    assert_eq!(plane.deploy(&token, &project(1)).await["status"], "failed");
    let another = json!({ "name": "g", "code": "export default 1" });
    assert_eq!(plane.deploy(&token, &another).await["status"], "active");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_long_until_objects_are_removed() {
    let data = Arc::new(TempDir::new().unwrap());
    let directory = data.path().join("data");
    let stores = open_embedded(&directory).unwrap();
    stores.functions.note_ahead(FunctionId::new()).await.unwrap();
    drop(stores);
    // What a server before was about to do is old for the next one.
    let lock = DataDirLock::acquire(&directory).unwrap();
    drop(open_embedded_exclusive(&lock).unwrap());
    drop(lock);

    for drain_ms in [60_000, 100] {
        let stuck = |stores| Curse::Stuck.over(stores);
        let mut plane = Plane::over(data.clone(), stuck, |options| options.drain_ms = drain_ms);
        plane.start_deployer();
        if drain_ms == 100 {
            // Bundles of deploys that fail are removed by whoever has built them.
            let token = plane.register("ada").await;
            plane.sandbox.faults.lock().push(failure());
            plane.deploy(&token, &project(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stopping = tokio::time::timeout(Duration::from_secs(10), plane.stop_deployer());
        assert!(stopping.await.is_ok(), "{drain_ms}");
    }
}
