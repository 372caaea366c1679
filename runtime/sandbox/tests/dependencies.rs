//! What npm fetches, and what it does not: the real npm, and a registry of the test's own.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "support/store.rs"]
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use cloudserve_protocol::build::{
    BuiltDependencies, DependencyBuilder, DependencyError, DependencySpec,
};
use cloudserve_sandbox::{NpmBuilder, NpmOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use store::MemoryStore;

/// The archive of version 1.0.0 of the package `a`: its `package.json` alone.
const ARCHIVE: &str = "1f8b08000000000002032b484cce4e4c4fd52f80d07a59c5f9790c5406064060666202a681009d3630303643b041e286866646a60c0a060c7400a5c525894540eb194626a856ca4bcc4d55b2524a54d2512a4b2d2acecccf03f20cf50cf40c946a1946c1281805a360140c530000f2fc131700080000";
const INTEGRITY: &str = "sha512-QkRMvZmZmg3hWpqR6Eq+qRtVGZGBpXL2b4P/ptdA72r+EuymoVdh+rJCjfce5BxLo33NCHAeFld3jV6C3/PuUw==";

/// A registry of one package, `a`.
struct Registry {
    url: String,
    /// The paths it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// Where the archive is and what the package depends on, seen from the registry's address.
    async fn start(describe: impl Fn(&str) -> (String, Value)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let (archive, dependencies) = describe(&url);
        let version = json!({
            "name": "a",
            "version": "1.0.0",
            "dependencies": dependencies,
            "dist": { "tarball": archive, "integrity": INTEGRITY },
        });
        let package = json!({
            "name": "a",
            "dist-tags": { "latest": "1.0.0" },
            "versions": { "1.0.0": version },
        });
        let package = Bytes::from(package.to_string());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        let answer = move |request: Request| {
            let path = request.uri().path().to_owned();
            let found = match path.as_str() {
                "/a" => Ok(package.clone()),
                "/a-1.0.0.tgz" => Ok(Bytes::from(hex::decode(ARCHIVE).unwrap())),
                _ => Err(StatusCode::NOT_FOUND),
            };
            seen.lock().push(path);
            async move { found }
        };
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    /// A builder that asks this registry for `a`.
    async fn build(&self) -> Result<BuiltDependencies, DependencyError> {
        let dir = TempDir::new().unwrap();
        let user_config = dir.path().join("npmrc");
        let settings = format!("registry={}/\nnoproxy=127.0.0.1,localhost\n", self.url);
        std::fs::write(&user_config, settings).unwrap();
        let options = NpmOptions {
            npm: npm(),
            user_config: Some(user_config),
            work_dir: dir.path().join("work"),
            ..NpmOptions::default()
        };
        let builder = NpmBuilder::new(options, Arc::new(MemoryStore::default())).unwrap();
        let dependencies = [("a".to_owned(), "^1.0.0".to_owned())].into();
        builder.build(DependencySpec { dependencies, ..DependencySpec::default() }).await
    }
}

/// The npm of the set-up, if it has run: the one that comes with Node may be too old.
fn npm() -> PathBuf {
    let installed = "../../tools/node_modules/npm/bin/npm-cli.js";
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(installed);
    if installed.is_file() { installed } else { PathBuf::from("npm") }
}

#[tokio::test]
async fn what_a_published_package_wants_from_elsewhere_is_not_fetched() {
    for (spec, code) in [
        ("REGISTRY/x.tgz", "EALLOWREMOTE"),
        ("github:u/r#0123456789abcdef0123456789abcdef01234567", "EALLOWGIT"),
        ("git+file:///srv/x", "EALLOWGIT"),
        ("file:/etc", "EALLOWDIRECTORY"),
        ("file:/srv/x.tgz", "EALLOWFILE"),
    ] {
        let registry = Registry::start(|url| {
            (format!("{url}/a-1.0.0.tgz"), json!({ "x": spec.replace("REGISTRY", url) }))
        })
        .await;
        let Err(DependencyError::Rejected(told)) = registry.build().await else {
            panic!("{spec} is refused")
        };
        assert!(told.contains(code), "{spec}: {told}");
        assert_eq!(*registry.asked.lock(), ["/a"], "{spec}");
    }
}

#[tokio::test]
async fn archives_may_lie_elsewhere_than_their_registry() {
    let archive = |url: &str| format!("{}/a-1.0.0.tgz", url.replace("127.0.0.1", "localhost"));
    let registry = Registry::start(|url| (archive(url), json!({}))).await;
    let built = registry.build().await.unwrap();
    assert_eq!(built.metadata.packages[0].name, "a");
    assert_eq!(built.metadata.tree_files, 1);
    assert!(registry.asked.lock().contains(&"/a-1.0.0.tgz".to_owned()));
}
