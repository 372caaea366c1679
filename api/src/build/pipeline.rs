//! The steps that make one version ready to be served. Each either leaves an immutable object
//! behind or nothing; none changes what is served.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cloudserve_artifacts::{Cache, TreeLease};
use cloudserve_identity::{Mask, Sealer};
use cloudserve_protocol::artifact::{ArtifactKey, ArtifactStore};
use cloudserve_protocol::build::{
    BuiltDependencies, CacheOutcome, DependencyBuilder, DependencyError, DependencySpec,
    ResolvedPackage,
};
use cloudserve_protocol::call::{HandlerKind, Target, VersionLoader};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::ids::{BundleHash, DepHash, UserId};
use cloudserve_store::function::{BuiltVersion, Claimed, DeployError, Source};
use cloudserve_store::{FunctionStore, Stores, Timestamp, TreeStore};
use futures::future::try_join_all;
use serde_json::json;
use tempfile::TempDir;

use super::assets::{self, Assets};
use super::esbuild::{
    BuildBounds, Bundle, BundleError, Esbuild, Project, package_of, uses_classic_jsx,
};
use super::leftovers::{LOOK_AGAIN, Leftovers, unswept};
use super::native;
use super::source::{LoadError, SourceFiles};
use crate::options::ApiOptions;

/// Build directories begin with this; what an earlier process left is known by it.
pub(super) const DIRECTORY_PREFIX: &str = "build-";

/// Text of an error that is kept for the owner.
const MAX_MESSAGE_CHARS: usize = 8_000;

/// How often it is asked for one dependency set at most: its tree may be removed just after it was found.
const INSTALLS: usize = 3;

/// Packages that import a file beside themselves by a name that only the running program knows: it is
/// beside them in the tree alone.
const NEVER_INLINED: [&str; 2] = ["pdf-parse", "pdfjs-dist"];

/// Modules Node brings, which win over packages of the same name.
const NODE_MODULES: [&str; 44] = [
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "domain",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "inspector",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "repl",
    "stream",
    "string_decoder",
    "sys",
    "test",
    "timers",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "v8",
    "vm",
    "wasi",
    "worker_threads",
    "zlib",
    "sqlite",
];

/// Why a version did not become ready.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt would end alike; the owner is told why.
    Final(DeployError),
    /// It is not the version's fault.
    Transient(Box<dyn Error + Send + Sync>),
}

impl Failure {
    fn told(code: &str, message: impl Into<String>) -> Self {
        let message = message.into().chars().take(MAX_MESSAGE_CHARS).collect();
        Self::Final(DeployError { code: code.to_owned(), message })
    }

    fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transient(cause.into())
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Rejected(message) => Self::told("bundle_error", message),
            BundleError::TimedOut { .. }
            | BundleError::OutOfMemory { .. }
            | BundleError::TooLarge { .. } => Self::told("limit_exceeded", error.to_string()),
            BundleError::Run(_) | BundleError::Ended { .. } | BundleError::Protocol(_) => {
                Self::transient(error)
            }
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault.class {
            FaultClass::SandboxUnavailable
            | FaultClass::ConcurrencyLimit
            | FaultClass::RateLimit
            | FaultClass::QuotaExceeded
            | FaultClass::Cancelled => Self::transient(fault),
            _ => {
                if let Some(refusal) = native::refusal_of_load(&fault.message) {
                    return Self::told("native_addon", refusal);
                }
                let detail = fault.detail.map(|detail| format!("\n{detail}")).unwrap_or_default();
                Self::told("startup_error", format!("{}{detail}", fault.message))
            }
        }
    }
}

/// Why a version does not load, in words that may be its own, without the values of its environment.
fn masked(mut fault: Fault, target: &Target) -> Fault {
    let mask = Mask::of(&target.env);
    mask.apply(&mut fault.message);
    if let Some(detail) = &mut fault.detail {
        mask.apply(detail);
    }
    fault
}

/// What the steps need.
pub(super) struct Pipeline {
    artifacts: Arc<dyn ArtifactStore>,
    functions: Arc<dyn FunctionStore>,
    trees: Arc<dyn TreeStore>,
    sealer: Sealer,
    builder: Arc<dyn DependencyBuilder>,
    loader: Arc<dyn VersionLoader>,
    cache: Arc<Cache>,
    leftovers: Arc<Leftovers>,
    esbuild: Esbuild,
    work_dir: PathBuf,
    /// What deploys of an account may add to the dependency trees; 0: no bound.
    tree_bytes_per_day: u64,
}

impl Pipeline {
    pub(super) fn new(
        options: &ApiOptions,
        stores: &Stores,
        sealer: Sealer,
        builder: Arc<dyn DependencyBuilder>,
        loader: Arc<dyn VersionLoader>,
        cache: Arc<Cache>,
        leftovers: Arc<Leftovers>,
    ) -> Self {
        let bounds = BuildBounds {
            bundle_bytes: options.limits.bundle_bytes,
            time_ms: options.limits.bundle_build_ms,
            memory_mb: options.bundle_memory_mb,
        };
        let esbuild = Esbuild::new(options.esbuild.clone(), bounds);
        Self {
            artifacts: stores.artifacts.clone(),
            functions: stores.functions.clone(),
            trees: stores.trees.clone(),
            sealer,
            builder,
            loader,
            cache,
            leftovers,
            esbuild,
            work_dir: options.work_dir.clone(),
            tree_bytes_per_day: options.limits.dependency_bytes_per_user_per_day,
        }
    }

    /// Builds a version, unless its build is known, and loads it once. What it returns is durable
    /// and known to work.
    pub(super) async fn make(&self, claimed: &Claimed) -> Result<BuiltVersion, Failure> {
        let mut known = claimed.version.built.as_ref();
        // A tree that was being removed when this version was accepted.
        if !self.has_tree(known.and_then(BuiltVersion::runtime_deps)).await? {
            known = None;
        }
        let mut built = match known {
            Some(built) => {
                // It may have been replaced, when its version was built again, before this one was accepted:
                // what is removed of it is removed before it is looked at.
                let unswept = unswept(self.functions.as_ref(), claimed.version.function_id);
                unswept.await.map_err(Failure::transient)?;
                built.clone()
            }
            None => self.build(claimed).await?,
        };
        let target = Arc::new(self.target(claimed, &built)?);
        let loaded = self.loader.load(target.clone()).await;
        built.handler_kind = loaded.map_err(|fault| masked(fault, &target))?.handler_kind;
        Ok(built)
    }

    async fn build(&self, claimed: &Claimed) -> Result<BuiltVersion, Failure> {
        let version = &claimed.version;
        let source = &version.source;
        let id = version.function_id;
        let files = SourceFiles::load(self.artifacts.as_ref(), id, source, &version.source_hash);
        let owner = claimed.function.user_id;
        let (files, dependencies) = tokio::try_join!(
            async { files.await.map_err(load_failed) },
            self.install(owner, source),
        )?;
        let (mut bundle, assets) = self.bundle(files, source, dependencies.as_ref()).await?;
        let (code, line) = (bundle.code, assets.as_ref().map(|assets| assets.line.clone()));
        let hashing = tokio::task::spawn_blocking(move || {
            let code = match line {
                Some(line) => Bytes::from([&code[..], line.as_bytes()].concat()),
                None => code,
            };
            (BundleHash::of(&code), code)
        });
        let (bundle_hash, code) = hashing.await.map_err(Failure::transient)?;
        bundle.code = code;
        let bundle_bytes = bundle.code.len() as u64;
        let needs_tree = dependencies.as_ref().is_some_and(|built| needs_tree(&bundle, built));
        let hash = || bundle_hash.clone();
        let mut objects = vec![
            (ArtifactKey::Bundle { function: id, hash: hash() }, bundle.code),
            (ArtifactKey::SourceMap { function: id, hash: hash() }, bundle.source_map),
        ];
        if let Some(assets) = assets {
            objects.push((ArtifactKey::Assets { function: id, hash: hash() }, assets.archive));
        }
        let beside = objects.iter().skip(1).map(|(_, bytes)| bytes.len() as u64);
        let beside_bytes: u64 = beside.sum();
        let manifest_key = ArtifactKey::PackageJson { function: id };
        // From here until the version has ended no server removes what it stores.
        let settled = self.leftovers.settled(id, version.version, &bundle_hash).await;
        settled.map_err(Failure::transient)?;
        self.leftovers.remember(owner, id, bundle_hash.clone());
        tokio::try_join!(
            try_join_all(objects.iter().map(|(key, bytes)| self.artifacts.put(key, bytes.clone()))),
            self.artifacts.put(&manifest_key, manifest(claimed)),
        )
        .map_err(Failure::transient)?;

        let (dep_hash, dependency_cache) =
            dependencies.map(|built| (built.dep_hash, built.cache)).unzip();
        Ok(BuiltVersion {
            bundle_hash,
            bundle_bytes,
            beside_bytes,
            dep_hash,
            dependency_cache,
            needs_tree,
            // What it is, loading it shows.
            handler_kind: HandlerKind::Constant,
        })
    }

    fn target(&self, claimed: &Claimed, built: &BuiltVersion) -> Result<Target, Failure> {
        let version = &claimed.version;
        let id = version.function_id;
        Ok(Target {
            function_id: id,
            owner_id: claimed.function.user_id,
            owner_name: claimed.owner_name.clone(),
            function_name: claimed.function.name.clone(),
            version: version.version,
            bundle_hash: built.bundle_hash.clone(),
            runtime_deps: built.runtime_deps().cloned(),
            limits: version.limits,
            env: self.sealer.open(id, &version.env).map_err(Failure::transient)?,
        })
    }

    async fn install(
        &self,
        owner: UserId,
        source: &Source,
    ) -> Result<Option<BuiltDependencies>, Failure> {
        if source.dependencies.is_empty() && source.optional_dependencies.is_empty() {
            return Ok(None);
        }
        let (day, max_bytes) = (Timestamp::now().day(), self.tree_bytes_per_day);
        let mut spent_bytes = None;
        if max_bytes != 0 {
            let spent = self.functions.trees_added(owner, day).await;
            let is_spent = spent.map_err(Failure::transient)? >= max_bytes;
            spent_bytes = is_spent.then_some(max_bytes);
        }
        let spec = DependencySpec {
            dependencies: source.dependencies.clone(),
            optional_dependencies: source.optional_dependencies.clone(),
            overrides: source.overrides.clone(),
            package_lock: source.package_lock.clone(),
            refresh: source.refresh_dependencies,
            spent_bytes,
        };
        let mut added: Option<DepHash> = None;
        for _ in 0..INSTALLS {
            let built = match self.builder.build(spec.clone()).await {
                Ok(built) => built,
                Err(DependencyError::Rejected(message)) => {
                    return Err(Failure::told("dependency_error", message));
                }
                Err(error @ DependencyError::Unavailable) => return Err(Failure::transient(error)),
            };
            // Once, though it was removed and is installed again. Before it is waited for: it is added
            // also where this comes to nothing, and is a hit for whoever tries again.
            if built.cache == CacheOutcome::Miss && added.as_ref() != Some(&built.dep_hash) {
                let bytes = built.metadata.archive_bytes;
                let noted = self.functions.add_tree(owner, day, bytes).await;
                noted.map_err(Failure::transient)?;
                added = Some(built.dep_hash.clone());
            }
            if self.has_tree(Some(&built.dep_hash)).await? {
                return Ok(Some(built));
            }
        }
        Err(Failure::transient("the dependency tree was removed each time"))
    }

    /// Whether this dependency tree, if there is to be one, is stored. If so it stays until a version names
    /// it: it was noted that it is used, so no removal begins, and those that had begun before are over.
    async fn has_tree(&self, hash: Option<&DepHash>) -> Result<bool, Failure> {
        let Some(hash) = hash.cloned() else { return Ok(true) };
        while !self.trees.use_tree(&hash).await.map_err(Failure::transient)? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let metadata = ArtifactKey::DependencyMetadata { hash: hash.clone() };
        let archive = ArtifactKey::DependencyTree { hash };
        let are_there =
            tokio::try_join!(self.artifacts.exists(&metadata), self.artifacts.exists(&archive));
        are_there.map(|(metadata, archive)| metadata && archive).map_err(Failure::transient)
    }

    async fn bundle(
        &self,
        files: SourceFiles,
        source: &Source,
        dependencies: Option<&BuiltDependencies>,
    ) -> Result<(Bundle, Option<Assets>), Failure> {
        let tree = match dependencies {
            Some(built) => Some(self.tree(built).await?),
            None => None,
        };
        let packages = tree.as_ref().map(|tree| tree.path().join("node_modules"));
        let work_dir = self.work_dir.clone();
        let laid_out = tokio::task::spawn_blocking(move || {
            let directory = lay_out(&work_dir, &files, packages.as_deref())?;
            // esbuild names files by their real paths.
            let path = directory.path().canonicalize()?;
            let is_classic_jsx = uses_classic_jsx(&files);
            Ok::<_, io::Error>((directory, path, files, is_classic_jsx))
        });
        let (directory, path, files, is_classic_jsx) =
            laid_out.await.map_err(Failure::transient)?.map_err(Failure::transient)?;

        let native = dependencies.map(|built| &built.metadata.native_packages[..]);
        let unusable = native::unusable(native.unwrap_or_default());
        let is_installed = |name: &str| dependencies.is_some_and(|built| is_at_top(built, name));
        let external: BTreeSet<_> = native
            .unwrap_or_default()
            .iter()
            .cloned()
            .chain(unusable.iter().map(|name| (*name).to_owned()))
            .chain(source.external.iter().cloned())
            .chain(NEVER_INLINED.into_iter().filter(|name| is_installed(name)).map(str::to_owned))
            .collect();
        let entry = &source.entry;
        let project = Project { directory: &path, files: &files, entry, is_classic_jsx, external };
        let bundle = self.esbuild.bundle(project).await;
        let with_code = bundle.as_ref().is_ok_and(|b| b.imports_dynamically || b.looks_around);
        let entry = entry.clone();
        let packing = tokio::task::spawn_blocking(move || {
            let packed = assets::pack(&files, &entry, with_code);
            // Thousands of files may have to be removed.
            tokio::task::spawn_blocking(move || drop((directory, files, tree)));
            packed
        });
        let bundle = bundle?;
        let refused = bundle
            .own_imports
            .iter()
            .find(|name| unusable.contains(&name[..]) && !source.external.contains(*name));
        if let Some(package) = refused {
            return Err(Failure::told("native_addon", native::refusal(package)));
        }
        let assets = packing.await.map_err(Failure::transient)?.map_err(Failure::transient)?;
        Ok((bundle, assets))
    }

    async fn tree(&self, built: &BuiltDependencies) -> Result<TreeLease, Failure> {
        self.cache.tree(&built.dep_hash).await.map_err(Failure::transient)
    }
}

fn load_failed(error: LoadError) -> Failure {
    Failure::transient(error)
}

/// A private directory with the files and a link to the packages.
fn lay_out(work_dir: &Path, files: &SourceFiles, packages: Option<&Path>) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir_in(work_dir)?;
    files.write_to(directory.path())?;
    // Without these esbuild would go on looking for them in the directories above.
    for (name, content) in [("package.json", "{}"), ("tsconfig.json", "{}")] {
        if files.get(name).is_none() {
            std::fs::write(directory.path().join(name), content)?;
        }
    }
    if let Some(packages) = packages {
        symlink(packages, directory.path().join("node_modules"))?;
    }
    Ok(directory)
}

/// Whether this package is where an import of the bundle finds it.
fn is_at_top(built: &BuiltDependencies, name: &str) -> bool {
    let mut packages = built.metadata.packages.iter();
    packages.any(|package| package.path.strip_prefix("node_modules/") == Some(name))
}

/// Whether the bundle asks for packages when it runs.
fn needs_tree(bundle: &Bundle, built: &BuiltDependencies) -> bool {
    // By an alias one is imported as the directory is called that it lies in.
    let is_in_tree = |name: &str| {
        let is_it = |package: &ResolvedPackage| {
            package.name == name || package.path.strip_prefix("node_modules/") == Some(name)
        };
        built.metadata.packages.iter().any(is_it)
    };
    bundle.imports_dynamically
        || bundle.looks_around
        || bundle.imports.iter().any(|path| {
            package_of(path).is_some_and(|name| !NODE_MODULES.contains(&name) && is_in_tree(name))
        })
}

fn manifest(claimed: &Claimed) -> Bytes {
    json!({
        "name": claimed.function.name,
        "private": true,
        "dependencies": claimed.version.source.dependencies,
    })
    .to_string()
    .into()
}
