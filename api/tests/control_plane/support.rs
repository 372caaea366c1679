//! The control plane over a real store and the real esbuild. Only the sandbox is not there: what
//! it is asked for is written down and answered as the test says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use cloudserve_api::{Api, ApiOptions};
use cloudserve_artifacts::{Cache, CacheOptions};
use cloudserve_identity::{Authenticator, Sealer, Secret, SessionTokens};
use cloudserve_protocol::artifact::{ArtifactKey, ArtifactStore};
use cloudserve_protocol::build::{
    BuiltDependencies, CacheOutcome, DependencyBuilder, DependencyError, DependencySpec,
    TREE_FORMAT_VERSION, TreeMetadata,
};
use cloudserve_protocol::call::{HandlerKind, LoadReport, Target, VersionLoader};
use cloudserve_protocol::fault::Fault;
use cloudserve_protocol::ids::{BundleHash, DepHash, FunctionId};
use cloudserve_store::{Stores, open_embedded};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// Credentials that nobody has, looked up per second and address.
pub(crate) const UNKNOWN_PER_SECOND: u32 = 10;

/// What the sandbox is asked for.
#[derive(Default)]
pub(crate) struct Sandbox {
    /// Faults of the next loads, last first.
    pub(crate) faults: Mutex<Vec<Fault>>,
    /// What was loaded.
    pub(crate) loaded: Mutex<Vec<Arc<Target>>>,
    /// What was retired.
    pub(crate) retired: Mutex<Vec<(FunctionId, u32)>>,
    /// Errors of the next dependency builds, last first.
    pub(crate) errors: Mutex<Vec<DependencyError>>,
    /// What was to be installed.
    pub(crate) specs: Mutex<Vec<DependencySpec>>,
    /// Loads wait for this while it is set.
    pub(crate) gate: Mutex<Option<Arc<Notify>>>,
    tree: Mutex<Option<Tree>>,
}

/// A tree, and where every build of it is stored.
#[derive(Clone)]
struct Tree {
    artifacts: Arc<dyn ArtifactStore>,
    objects: [(ArtifactKey, Bytes); 2],
    built: BuiltDependencies,
}

impl Tree {
    async fn store(&self) {
        for (key, bytes) in &self.objects {
            self.artifacts.put(key, bytes.clone()).await.unwrap();
        }
    }
}

#[async_trait]
impl VersionLoader for Sandbox {
    async fn load(&self, target: Arc<Target>) -> Result<LoadReport, Fault> {
        self.loaded.lock().push(target);
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        match self.faults.lock().pop() {
            Some(fault) => Err(fault),
            None => Ok(LoadReport { handler_kind: HandlerKind::Event, load_us: 1, logs: vec![] }),
        }
    }

    fn retire_below(&self, function_id: FunctionId, version: u32) {
        self.retired.lock().push((function_id, version));
    }
}

#[async_trait]
impl DependencyBuilder for Sandbox {
    async fn build(&self, spec: DependencySpec) -> Result<BuiltDependencies, DependencyError> {
        self.specs.lock().push(spec);
        if let Some(error) = self.errors.lock().pop() {
            return Err(error);
        }
        let tree = self.tree.lock().clone().expect("the test provides a tree");
        tree.store().await;
        Ok(tree.built)
    }
}

/// A control plane of one's own.
pub(crate) struct Plane {
    pub(crate) stores: Stores,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) api: Api,
    pub(crate) data: Arc<TempDir>,
    deployer: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The body of a deploy whose code has this number.
pub(crate) fn version(number: u32) -> Value {
    json!({ "name": "f", "filename": "f.mjs", "code": format!("export default {number}") })
}

/// A function once a field of its view has this value.
pub(crate) async fn wait_for(
    plane: &Plane,
    token: &str,
    id: &str,
    field: &str,
    value: &Value,
) -> Value {
    for _ in 0..600 {
        let view = plane.get(token, &format!("/api/function/{id}")).await.expect(200).body;
        if view[field] == *value {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{field} never was {value}");
}

/// The program that builds.
pub(crate) fn esbuild() -> PathBuf {
    let installed = "../tools/node_modules/@esbuild/linux-x64/bin/esbuild";
    let path = std::env::var_os("CLOUDSERVE_ESBUILD")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(installed), PathBuf::from);
    assert!(path.is_file(), "{} is missing: `make setup` installs it", path.display());
    path
}

impl Plane {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(set: impl FnOnce(&mut ApiOptions)) -> Self {
        let mut plane = Self::at(Arc::new(TempDir::new().unwrap()), set);
        plane.start_deployer();
        plane
    }

    /// Over this directory, with nobody at the queue.
    pub(crate) fn at(data: Arc<TempDir>, set: impl FnOnce(&mut ApiOptions)) -> Self {
        Self::over(data, |stores| stores, set)
    }

    /// The same over other stores.
    pub(crate) fn over(
        data: Arc<TempDir>,
        change: impl FnOnce(Stores) -> Stores,
        set: impl FnOnce(&mut ApiOptions),
    ) -> Self {
        let stores = change(open_embedded(&data.path().join("data")).unwrap());
        let secret = Secret::parse(&"5a".repeat(32)).unwrap();
        let tokens = SessionTokens::new(&secret, Duration::from_secs(3_600));
        let (accounts, changes) = (stores.accounts.clone(), stores.changes.as_ref());
        let authenticator = Authenticator::new(accounts, tokens, changes, UNKNOWN_PER_SECOND);
        let mut options = ApiOptions {
            work_dir: data.path().join("builds"),
            esbuild: esbuild(),
            gateway_url: Some("http://127.0.0.1:8081".into()),
            queue_poll_ms: 50,
            deploy_retry_ms: 10,
            ..ApiOptions::default()
        };
        set(&mut options);
        let sandbox = Arc::new(Sandbox::default());
        let cache_dir = data.path().join("cache");
        let cache =
            Cache::open(&cache_dir, stores.artifacts.clone(), CacheOptions::default()).unwrap();
        let api = Api::new(
            options,
            stores.clone(),
            authenticator,
            Sealer::new(&secret),
            sandbox.clone(),
            sandbox.clone(),
            Arc::new(cache),
        );
        Self { stores, sandbox, api, data, deployer: None }
    }

    pub(crate) fn start_deployer(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let run = self.api.run_deployer(async { drop(stopped.await) });
        self.deployer = Some((stop, tokio::spawn(run)));
    }

    pub(crate) async fn stop_deployer(&mut self) {
        let (stop, task) = self.deployer.take().unwrap();
        drop(stop);
        task.await.unwrap();
    }

    /// Makes these files the tree of every dependency set.
    pub(crate) async fn provide_tree(&self, native: &[&str], files: &[(&str, &str)]) -> DepHash {
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        let mut packages = Vec::new();
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            let path = format!("node_modules/{path}");
            archive.append_data(&mut header, &path, text.as_bytes()).unwrap();
            if let Some(package) = path.strip_suffix("/package.json") {
                let manifest: Value = serde_json::from_str(text).unwrap();
                packages.push(cloudserve_protocol::build::ResolvedPackage {
                    path: package.to_owned(),
                    name: manifest["name"]
                        .as_str()
                        .unwrap_or(&package["node_modules/".len()..])
                        .to_owned(),
                    version: "1.0.0".into(),
                    integrity: String::new(),
                });
            }
        }
        let archive = archive.into_inner().unwrap().finish().unwrap();
        let dep_hash = DepHash::of(&archive);
        let metadata = TreeMetadata {
            format_version: TREE_FORMAT_VERSION,
            archive_sha256: BundleHash::of(&archive).to_string(),
            archive_bytes: archive.len() as u64,
            tree_bytes: 100_000,
            tree_files: 100,
            packages,
            native_packages: native.iter().map(|name| (*name).to_owned()).collect(),
        };
        let hash = dep_hash.clone();
        let described = serde_json::to_vec(&metadata).unwrap();
        let objects = [
            (ArtifactKey::DependencyTree { hash: hash.clone() }, archive.into()),
            (ArtifactKey::DependencyMetadata { hash: hash.clone() }, described.into()),
        ];
        let built = BuiltDependencies { dep_hash, cache: CacheOutcome::Miss, metadata };
        let tree = Tree { artifacts: self.stores.artifacts.clone(), objects, built };
        tree.store().await;
        *self.sandbox.tree.lock() = Some(tree);
        hash
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.api.router().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, body, text }
    }

    /// Sends JSON.
    pub(crate) async fn call(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, &Value::Null).await
    }

    /// Registers and gives the token.
    pub(crate) async fn register(&self, name: &str) -> String {
        let body = json!({
            "fullName": name, "userName": name, "email": format!("{name}@example.org"),
            "password": "correct horse",
        });
        let answer = self.call("", "POST", "/api/auth/register", &body).await.expect(201);
        answer.body["token"].as_str().unwrap().to_owned()
    }

    /// Deploys and waits for the end.
    pub(crate) async fn deploy(&self, token: &str, body: &Value) -> Value {
        self.call(token, "POST", "/api/function/deploy?wait=true", body).await.expect(200).body
    }

    /// The text of a deployed bundle.
    pub(crate) async fn bundle(&self, view: &Value) -> String {
        let key = ArtifactKey::Bundle {
            function: view["id"].as_str().unwrap().parse().unwrap(),
            hash: view["bundleHash"].as_str().unwrap().parse().unwrap(),
        };
        let bytes = self.stores.artifacts.get(&key, 1 << 30).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}
