//! What npm fetches, and what it does not: the real npm, and a registry of the test's own.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "support/store.rs"]
mod store;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use cloudserve_protocol::build::{
    BuiltDependencies, DependencyBuilder, DependencyError, DependencySpec,
};
use cloudserve_protocol::limits::PlatformLimits;
use cloudserve_sandbox::{NpmBuilder, NpmOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use store::MemoryStore;

/// The archive of version 1.0.0 of the package `a`: its `package.json` alone.
const ARCHIVE: &str = "1f8b08000000000002032b484cce4e4c4fd52f80d07a59c5f9790c5406064060666202a681009d3630303643b041e286866646a60c0a060c7400a5c525894540eb194626a856ca4bcc4d55b2524a54d2512a4b2d2acecccf03f20cf50cf40c946a1946c1281805a360140c530000f2fc131700080000";
const INTEGRITY: &str = "sha512-QkRMvZmZmg3hWpqR6Eq+qRtVGZGBpXL2b4P/ptdA72r+EuymoVdh+rJCjfce5BxLo33NCHAeFld3jV6C3/PuUw==";

/// The same with `b` 1.2.3 in it, which the registry does not have.
const BUNDLE: &str = "1f8b0800000000000203ed94c10e82300c86f728a66702dbc09978f62d8c9a8d3506858d30f142787717302672f14248d47d97bf6b9becf4b596f9559e31a9c78c2fce1a3233d423b26c48cf3429e39b573df419135c9015250bd0ba9b6cfcf7e43fe9c0c80a610b1222b863e30a6bfc8bc534a6bea3b146a3d1e4053ad876a0fcec380efb08546b7489bbb79dbddf39f424f01d3cbd4f8cd578aaac6e4b74899af71c7cf29fa662e27fb6e669f07f51ffd5c47f1ea710340e0402819fe5015fb2d196000c0000";
const BUNDLE_INTEGRITY: &str = "sha512-ItkIzYP1Y2VN6eW5e9dYlETfOfP2EYz/li1O2JDAVfboiJs6cWXIUld0N5GWslX4fDEURY7Joi/GSNYMLG1NMw==";

/// A registry of one package, `a`, and sometimes a second.
struct Registry {
    url: String,
    /// The paths it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
    /// The path at which it fails just now.
    failing: Arc<Mutex<&'static str>>,
}

impl Registry {
    /// Where the archive is and what the package depends on, seen from the registry's address.
    async fn start(describe: impl Fn(&str) -> (String, Value)) -> Self {
        Self::of(ARCHIVE, |url| {
            let (archive, dependencies) = describe(url);
            json!({
                "dependencies": dependencies,
                "dist": { "tarball": archive, "integrity": INTEGRITY },
            })
        })
        .await
    }

    /// The archive, in hexadecimal digits, and what the registry says of it.
    async fn of(archive: &'static str, describe: impl Fn(&str) -> Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let mut version = describe(&url);
        version["name"] = json!("a");
        version["version"] = json!("1.0.0");
        let package = package("a", &version);
        // Others, with the plain archive: for any system, for another one, and what only that needs.
        let other = |name: &str, fields: Value| {
            let mut version = fields;
            version["name"] = json!(name);
            version["version"] = json!("1.0.0");
            let archive = format!("{url}/{name}-1.0.0.tgz");
            version["dist"] = json!({ "tarball": archive, "integrity": INTEGRITY });
            self::package(name, &version)
        };
        let o = other("o", json!({}));
        let w = other("w", json!({ "os": ["win32"], "dependencies": { "n": "^1.0.0" } }));
        let n = other("n", json!({}));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        let failing = Arc::<Mutex<&'static str>>::default();
        let fails = failing.clone();
        let answer = move |request: Request| {
            let path = request.uri().path().to_owned();
            let found = match path.as_str() {
                path if path == *fails.lock() => Err(StatusCode::SERVICE_UNAVAILABLE),
                "/a" => Ok(package.clone()),
                "/o" => Ok(o.clone()),
                "/w" => Ok(w.clone()),
                "/n" => Ok(n.clone()),
                "/a-1.0.0.tgz" => Ok(Bytes::from(hex::decode(archive).unwrap())),
                "/o-1.0.0.tgz" | "/n-1.0.0.tgz" => Ok(Bytes::from(hex::decode(ARCHIVE).unwrap())),
                _ => Err(StatusCode::NOT_FOUND),
            };
            seen.lock().push(path);
            async move { found }
        };
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked, failing }
    }

    /// Has `a` built of this registry.
    async fn build(&self) -> Result<BuiltDependencies, DependencyError> {
        self.build_with(DependencySpec::default()).await
    }

    /// Likewise, with what else this says.
    async fn build_with(&self, spec: DependencySpec) -> Result<BuiltDependencies, DependencyError> {
        self.build_within(PlatformLimits::default(), spec).await
    }

    /// Likewise, within these bounds.
    async fn build_within(
        &self,
        limits: PlatformLimits,
        mut spec: DependencySpec,
    ) -> Result<BuiltDependencies, DependencyError> {
        let dir = TempDir::new().unwrap();
        let user_config = dir.path().join("npmrc");
        let settings = format!(
            "registry={}/\nnoproxy=127.0.0.1,localhost\nfetch-retries=0\nlogs-max=0\n",
            self.url
        );
        std::fs::write(&user_config, settings).unwrap();
        let options = NpmOptions {
            npm: npm(),
            user_config: Some(user_config),
            work_dir: dir.path().join("work"),
            limits,
            ..NpmOptions::default()
        };
        let builder = NpmBuilder::new(options, Arc::new(MemoryStore::default())).unwrap();
        spec.dependencies.insert("a".to_owned(), "^1.0.0".to_owned());
        builder.build(spec).await
    }
}

/// What a registry says of a package of one version.
fn package(name: &str, version: &Value) -> Bytes {
    let package = json!({
        "name": name,
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    Bytes::from(package.to_string())
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
        assert!(registry.asked.lock().iter().all(|path| path == "/a"), "{spec}");
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

#[tokio::test]
async fn a_tree_is_bounded_in_bytes_and_in_files() {
    let registry = Registry::start(|url| (format!("{url}/a-1.0.0.tgz"), json!({}))).await;
    let bytes = PlatformLimits { dependency_tree_bytes: 10, ..PlatformLimits::default() };
    let files = PlatformLimits { dependency_tree_files: 0, ..PlatformLimits::default() };
    for (limits, bound) in [(bytes, "dependency_tree_bytes"), (files, "dependency_tree_files")] {
        let built = registry.build_within(limits, DependencySpec::default()).await;
        let Err(DependencyError::Rejected(told)) = built else { panic!("{bound} is none") };
        assert!(told.contains(bound), "{told}");
    }
}

#[tokio::test]
async fn nothing_is_installed_for_who_has_added_enough() {
    let registry = Registry::start(|url| (format!("{url}/a-1.0.0.tgz"), json!({}))).await;
    let spec = DependencySpec { spent_bytes: Some(12_345), ..DependencySpec::default() };
    let Err(DependencyError::Rejected(told)) = registry.build_with(spec).await else {
        panic!("it is not stored")
    };
    assert!(told.contains("12345 bytes"), "{told}");
    assert!(told.contains("dependency_bytes_per_user_per_day"), "{told}");
    assert!(registry.asked.lock().iter().all(|path| path == "/a"), "it was fetched");
}

/// An npm that takes its time to say that the registry lacks a version, whenever it is to install.
const SLOW: &str = "#!/usr/bin/env node
const command = process.argv[2];
if (command === '--version') {
  console.log('11.15.0');
} else if (command === 'install') {
  const lock = { lockfileVersion: 3, packages: {} };
  require('node:fs').writeFileSync('package-lock.json', JSON.stringify(lock));
} else {
  setTimeout(() => {
    console.error('npm error code ETARGET');
    process.exitCode = 1;
  }, 3000);
}
";

#[tokio::test]
async fn all_runs_that_install_a_tree_are_bounded_together() {
    let dir = TempDir::new().unwrap();
    let npm = dir.path().join("npm");
    std::fs::write(&npm, SLOW).unwrap();
    std::fs::set_permissions(&npm, std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = NpmOptions {
        npm,
        work_dir: dir.path().join("work"),
        // Enough for one of the two.
        limits: PlatformLimits { dependency_build_ms: 5_000, ..PlatformLimits::default() },
        ..NpmOptions::default()
    };
    let builder = NpmBuilder::new(options, Arc::new(MemoryStore::default())).unwrap();
    let dependencies = [("a".to_owned(), "^1.0.0".to_owned())].into();
    let spec = DependencySpec { dependencies, ..DependencySpec::default() };
    let Err(DependencyError::Rejected(told)) = builder.build(spec).await else {
        panic!("nothing is installed")
    };
    assert!(told.contains("dependency_build_ms"), "{told}");
}

#[tokio::test]
async fn packages_may_bring_others_along() {
    let registry = Registry::of(BUNDLE, |url| {
        json!({
            "dependencies": { "b": "^1.0.0" },
            "bundleDependencies": ["b"],
            "dist": { "tarball": format!("{url}/a-1.0.0.tgz"), "integrity": BUNDLE_INTEGRITY },
        })
    })
    .await;
    let built = registry.build().await.unwrap();
    let packages: Vec<_> = built
        .metadata
        .packages
        .iter()
        .map(|package| (&*package.path, &*package.version, &*package.integrity))
        .collect();
    let below = "node_modules/a/node_modules/b";
    assert_eq!(packages, [("node_modules/a", "1.0.0", BUNDLE_INTEGRITY), (below, "1.2.3", "")]);
    assert_eq!(built.metadata.tree_files, 2);
    let asked = registry.asked.lock();
    assert!(asked.iter().all(|path| ["/a", "/a-1.0.0.tgz"].contains(&&**path)), "{asked:?}");
}

#[tokio::test]
async fn what_is_optional_may_be_missing_from_the_registry() {
    let registry = Registry::of(ARCHIVE, |url| {
        json!({
            "optionalDependencies": { "x": "^1.0.0" },
            "dist": { "tarball": format!("{url}/a-1.0.0.tgz"), "integrity": INTEGRITY },
        })
    })
    .await;
    let built = registry.build().await.unwrap();
    assert_eq!(built.metadata.packages.len(), 1);
    assert_eq!(built.metadata.tree_files, 1);
}

#[tokio::test]
async fn what_is_optional_is_not_left_out_because_the_registry_fails() {
    for failing in ["/o", "/o-1.0.0.tgz"] {
        let registry = Registry::of(ARCHIVE, |url| {
            json!({
                // Made for another system, and what only that needs, goes.
                "optionalDependencies": { "o": "^1.0.0", "w": "^1.0.0" },
                "dist": { "tarball": format!("{url}/a-1.0.0.tgz"), "integrity": INTEGRITY },
            })
        })
        .await;
        *registry.failing.lock() = failing;
        let ended = registry.build().await;
        assert!(matches!(ended, Err(DependencyError::Unavailable)), "{failing}: {ended:?}");
        *registry.failing.lock() = "";
        let built = registry.build().await.unwrap();
        let paths: Vec<_> = built.metadata.packages.iter().map(|found| &*found.path).collect();
        let listed = ["a", "n", "o", "w"].map(|name| format!("node_modules/{name}"));
        assert_eq!(paths, listed);
        assert_eq!(built.metadata.tree_files, 2);
    }
}

#[tokio::test]
async fn packages_are_replaced_and_optional_ones_left_out_as_the_project_says() {
    let needs_o = |url: &str| (format!("{url}/a-1.0.0.tgz"), json!({ "o": "^1.0.0" }));
    let registry = Registry::start(needs_o).await;
    let spec = DependencySpec {
        // For another system: what is not optional fails.
        optional_dependencies: [("w".to_owned(), "^1.0.0".to_owned())].into(),
        overrides: Some(json!({ "o": "npm:n@1.0.0" }).to_string()),
        ..DependencySpec::default()
    };
    let built = registry.build_with(spec).await.unwrap();
    let mut packages = built.metadata.packages.iter().map(|found| (&*found.path, &*found.name));
    assert!(packages.any(|found| found == ("node_modules/o", "n")), "{:?}", built.metadata);
    // `a` and what replaces `o`.
    assert_eq!(built.metadata.tree_files, 2);
}
