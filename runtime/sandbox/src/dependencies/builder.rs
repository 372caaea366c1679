//! From a specification to a stored tree.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_artifacts::{Packed, pack};
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore};
use cloudserve_protocol::build::{
    BuiltDependencies, CacheOutcome, DependencyBuilder, DependencyError, DependencySpec,
    ResolvedPackage, TREE_FORMAT_VERSION, TreeMetadata,
};
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::DepHash;
use cloudserve_protocol::limits::PlatformLimits;
use futures::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};
use walkdir::{DirEntry, WalkDir};

use super::directory::{Directory, PREFIX};
use super::lockfile::{packages, received, without_addresses};
use super::npm::{Npm, measure, own_user_config};
use super::spec::CheckedSpec;
use super::tree_hash::dep_hash;
use super::turns::Turns;

/// The Node ABI that the worker emulates (Node 26) and the platform: trees are of one.
#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "node-abi-147 linux-x64";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "node-abi-147 linux-arm64";

/// What npm may write beside a tree, if the tree may not have more.
const BESIDE_BYTES: u64 = 256 * 1024 * 1024;

/// So many times that one run may add to npm's downloads, for each build that there may be at a time: npm
/// keeps archives, and what it was told of each package.
const DOWNLOAD_TIMES: u64 = 4;

/// npm's codes for a version it does not know, for an address it may not ask, and for a lock file that
/// it misses something in.
const NO_SUCH_VERSION: &str = "ETARGET";
const OTHER_ADDRESS: &str = "EALLOWREMOTE";
const NOT_LISTED: &str = "EUSAGE";

const LOCK: &str = "package-lock.json";

const MAX_METADATA_BYTES: u64 = 32 * 1024 * 1024;

/// How trees are built.
#[derive(Debug, Clone)]
pub struct NpmOptions {
    /// The npm program.
    pub npm: PathBuf,
    /// npm's own configuration; the service account's `.npmrc` if `None`.
    pub user_config: Option<PathBuf>,
    /// Where npm keeps what it downloaded; below `work_dir` if `None`.
    pub cache_dir: Option<PathBuf>,
    /// What npm may keep of that: beyond it, a build begins with nothing as soon as no other one is
    /// under way. 0: no bound.
    pub cache_bytes: u64,
    /// Where builds happen. Made if need be.
    pub work_dir: PathBuf,
    /// How long what a range was resolved to is taken again, in seconds.
    pub resolution_ttl_s: u64,
    /// Builds at the same time; more wait.
    pub builds_in_parallel: usize,
    /// Bounds on trees and time.
    pub limits: PlatformLimits,
}

impl Default for NpmOptions {
    fn default() -> Self {
        Self {
            npm: PathBuf::from("npm"),
            user_config: None,
            cache_dir: None,
            cache_bytes: 4 * 1024 * 1024 * 1024,
            work_dir: PathBuf::from("npm"),
            resolution_ttl_s: 24 * 60 * 60,
            builds_in_parallel: 2,
            limits: PlatformLimits::default(),
        }
    }
}

/// What a specification was resolved to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resolution {
    format_version: u32,
    dep_hash: DepHash,
    resolved_at_s: u64,
}

type Flights = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// Builds dependency trees with npm.
pub struct NpmBuilder {
    store: Arc<dyn ArtifactStore>,
    npm: Npm,
    /// Set once npm is known to be one that can be kept to the registry.
    checked: tokio::sync::OnceCell<()>,
    work_dir: PathBuf,
    resolution_ttl_s: u64,
    turns: Turns,
    flights: Flights,
}

impl NpmBuilder {
    /// A builder. Removes what an earlier process left of its builds. Blocks.
    pub fn new(options: NpmOptions, store: Arc<dyn ArtifactStore>) -> std::io::Result<Self> {
        std::fs::create_dir_all(&options.work_dir)?;
        let work_dir = options.work_dir.canonicalize()?;
        for entry in std::fs::read_dir(&work_dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let tree_bytes = options.limits.dependency_tree_bytes;
        let home_bytes = tree_bytes.max(BESIDE_BYTES);
        // Where others download to the same place it is not known who does.
        let n_builds = if options.cache_bytes == 0 { 0 } else { options.builds_in_parallel.max(1) };
        let npm = Npm {
            program: options.npm,
            user_config: options.user_config.or_else(own_user_config),
            cache_dir: options.cache_dir.unwrap_or_else(|| work_dir.join("cache")),
            timeout: Duration::from_millis(options.limits.dependency_build_ms.into()),
            tree_bytes,
            tree_files: options.limits.dependency_tree_files,
            home_bytes,
            download_bytes: home_bytes
                .saturating_mul(DOWNLOAD_TIMES)
                .saturating_mul(n_builds as u64),
        };
        let turns = Turns::new(options.builds_in_parallel, &npm.cache_dir, options.cache_bytes);
        Ok(Self {
            store,
            npm,
            checked: tokio::sync::OnceCell::new(),
            work_dir,
            resolution_ttl_s: options.resolution_ttl_s,
            turns,
            flights: Flights::default(),
        })
    }

    /// What this specification was resolved to not long ago, if that tree is still stored.
    async fn known(&self, key: &ArtifactKey) -> Result<Option<BuiltDependencies>, DependencyError> {
        let resolution: Option<Resolution> = self.read(key).await?;
        let Some(resolution) = resolution else { return Ok(None) };
        let age_s = epoch_s().saturating_sub(resolution.resolved_at_s);
        if resolution.format_version != TREE_FORMAT_VERSION || age_s > self.resolution_ttl_s {
            return Ok(None);
        }
        self.stored(resolution.dep_hash).await
    }

    /// The tree of this hash, if it is stored and whole.
    async fn stored(&self, hash: DepHash) -> Result<Option<BuiltDependencies>, DependencyError> {
        let key = ArtifactKey::DependencyMetadata { hash: hash.clone() };
        let metadata: Option<TreeMetadata> = self.read(&key).await?;
        let metadata = metadata.filter(|found| found.format_version == TREE_FORMAT_VERSION);
        let Some(metadata) = metadata else { return Ok(None) };
        let key = ArtifactKey::DependencyTree { hash: hash.clone() };
        if self.sha256_of(&key).await?.as_ref() != Some(&metadata.archive_sha256) {
            warn!(dep_hash = %hash, "the stored dependency tree is damaged; it is built again");
            return Ok(None);
        }
        Ok(Some(BuiltDependencies { dep_hash: hash, cache: CacheOutcome::Hit, metadata }))
    }

    /// The hash of an object that may be large; `None` if there is none.
    async fn sha256_of(&self, key: &ArtifactKey) -> Result<Option<String>, DependencyError> {
        let mut pieces = match self.store.stream(key).await {
            Ok(pieces) => pieces,
            Err(ArtifactError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.next().await {
            hasher.update(&piece.map_err(|error| unavailable(&error))?);
        }
        Ok(Some(hex::encode(hasher.finalize())))
    }

    async fn read<T: for<'de> Deserialize<'de>>(
        &self,
        key: &ArtifactKey,
    ) -> Result<Option<T>, DependencyError> {
        match self.store.get(key, MAX_METADATA_BYTES).await {
            // What cannot be read is made again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(ArtifactError::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn write<T: Serialize>(
        &self,
        key: &ArtifactKey,
        value: &T,
    ) -> Result<(), DependencyError> {
        let bytes = serde_json::to_vec(value).map_err(|error| unavailable(&error))?;
        self.store.put(key, Bytes::from(bytes)).await.map_err(|error| unavailable(&error))
    }

    /// Exact versions, as a lock file in `dir`, and the hash of their tree.
    async fn resolve(
        &self,
        dir: &Path,
        spec: &CheckedSpec,
    ) -> Result<(Vec<ResolvedPackage>, DepHash), DependencyError> {
        let write = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).map_err(|error| unavailable(&error))
        };
        write("package.json", &spec.package_json())?;
        if let Some(lock) = spec.package_lock() {
            // Checked before npm sees it; npm checks that it fits package.json.
            let lock = lock.to_owned();
            write(LOCK, &off_thread(move || received(&lock)).await?)?;
        }
        let until = self.npm.until();
        self.checked.get_or_try_init(|| self.npm.check_version(dir, until)).await?;
        match self.npm.run(dir, until, &["install", "--package-lock-only"]).await {
            // What lies in the archive of a package is known to those who look into it. To list it, npm
            // asks the archive's address, which it may not; to install it, the registry.
            Err(DependencyError::Rejected(told)) if told.contains(OTHER_ADDRESS) => {
                self.npm.run(dir, until, &["install"]).await?;
            }
            resolved => resolved?,
        }
        let dir = dir.to_owned();
        off_thread(move || {
            let lock = read_lock(&dir)?;
            let packages = packages(&lock)?;
            let hash = dep_hash(PLATFORM, &packages, &lock)?;
            Ok((packages, hash))
        })
        .await
    }

    /// Has npm install what the lock file in `dir` says.
    async fn install_listed(&self, dir: &Path) -> Result<(), DependencyError> {
        let (mut command, mut is_cache_asked, mut has_addresses) = ("ci", true, true);
        let until = self.npm.until();
        loop {
            let mut args = vec![command];
            if is_cache_asked {
                args.push("--prefer-offline");
            }
            let told = match self.npm.run(dir, until, &args).await {
                Err(DependencyError::Rejected(told)) => told,
                ended => return ended,
            };
            if is_cache_asked && told.contains(NO_SUCH_VERSION) {
                // What npm's cache holds of a package is older than the version that was resolved.
                is_cache_asked = false;
            } else if has_addresses && told.contains(OTHER_ADDRESS) {
                // A registry may keep its archives elsewhere; asked for a package by name, it says
                // where.
                let lock = without_addresses(&read_lock(dir)?);
                let lock = lock.ok_or(DependencyError::Unavailable)?;
                std::fs::write(dir.join(LOCK), lock).map_err(|error| unavailable(&error))?;
                has_addresses = false;
            } else if command == "ci" && told.contains(NOT_LISTED) {
                // An optional package that the registry does not have is not listed. `ci` takes that
                // for an error, `install` does not.
                command = "install";
            } else {
                return Err(DependencyError::Rejected(told));
            }
        }
    }

    /// Installs what the lock file in `dir` says, and stores it.
    async fn install(
        &self,
        dir: &Path,
        hash: &DepHash,
        packages: Vec<ResolvedPackage>,
    ) -> Result<TreeMetadata, DependencyError> {
        self.install_listed(dir).await?;
        let installed_in = dir.to_owned();
        if off_thread(move || self::packages(&read_lock(&installed_in)?)).await? != packages {
            error!(dep_hash = %hash, "npm has installed other packages than it had listed");
            return Err(DependencyError::Unavailable);
        }
        let tree = dir.join("node_modules");
        let archive = dir.join("node_modules.tar.gz");
        let (npm, packed_to) = (self.npm.clone(), archive.clone());
        let packing = off_thread(move || pack_tree(&npm, &tree, &packed_to));
        let (packed, native_packages) = packing.await?;
        let metadata = TreeMetadata {
            format_version: TREE_FORMAT_VERSION,
            archive_sha256: packed.sha256,
            archive_bytes: packed.archive_bytes,
            tree_bytes: packed.tree_bytes,
            tree_files: packed.tree_files,
            packages,
            native_packages,
        };
        let key = ArtifactKey::DependencyTree { hash: hash.clone() };
        self.store.put_file(&key, &archive).await.map_err(|error| unavailable(&error))?;
        self.write(&ArtifactKey::DependencyMetadata { hash: hash.clone() }, &metadata).await?;
        Ok(metadata)
    }

    async fn build_in(
        &self,
        dir: &Path,
        spec: &CheckedSpec,
    ) -> Result<BuiltDependencies, DependencyError> {
        let (packages, dep_hash) = self.resolve(dir, spec).await?;
        let flight = self.flight(dep_hash.as_str());
        let turn = flight.lock().await;
        let built = if let Some(stored) = self.stored(dep_hash.clone()).await? {
            stored
        } else if let Some(refusal) = spec.refusal_to_add() {
            return Err(refusal);
        } else {
            let metadata = self.install(dir, &dep_hash, packages).await?;
            info!(%dep_hash, bytes = metadata.tree_bytes, files = metadata.tree_files,
                "dependency tree built");
            BuiltDependencies { dep_hash, cache: CacheOutcome::Miss, metadata }
        };
        drop(turn);
        Ok(built)
    }

    /// The lock under which one thing is built once, however many ask.
    fn flight(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock();
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        flights.entry(key.to_owned()).or_default().clone()
    }
}

#[async_trait]
impl DependencyBuilder for NpmBuilder {
    async fn build(&self, spec: DependencySpec) -> Result<BuiltDependencies, DependencyError> {
        let spec = CheckedSpec::new(spec)?;
        let spec_hash = spec.hash(PLATFORM);
        let key = ArtifactKey::Resolution { spec_hash: spec_hash.clone() };
        let flight = self.flight(&spec_hash);
        let _turn = flight.lock().await;
        if !spec.refresh()
            && let Some(known) = self.known(&key).await?
        {
            return Ok(known);
        }
        let _place = self.turns.take().await.map_err(|error| unavailable(&error))?;
        let dir = Directory::new_in(&self.work_dir).map_err(|error| unavailable(&error))?;
        let built = self.build_in(dir.path(), &spec).await?;
        drop(dir);
        let resolution = Resolution {
            format_version: TREE_FORMAT_VERSION,
            dep_hash: built.dep_hash.clone(),
            resolved_at_s: epoch_s(),
        };
        self.write(&key, &resolution).await?;
        Ok(built)
    }
}

/// Does what takes long, such as reading a lock file of megabytes, on a thread that serves nobody.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DependencyError> + Send + 'static,
) -> Result<T, DependencyError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(&error))?
}

/// Packs what npm has installed, if anything; says which packages of it are native. Blocks.
fn pack_tree(
    npm: &Npm,
    tree: &Path,
    archive: &Path,
) -> Result<(Packed, Vec<String>), DependencyError> {
    match std::fs::create_dir(tree) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // As when the build was given up and its directory is gone, which is not to be made again.
        made => made.map_err(|error| unavailable(&error))?,
    }
    npm.check(measure(tree))?;
    let packed = pack(tree, "node_modules", archive, is_content);
    Ok((packed.map_err(|error| unavailable(&error))?, native_packages(tree)))
}

fn read_lock(dir: &Path) -> Result<String, DependencyError> {
    std::fs::read_to_string(dir.join(LOCK)).map_err(|error| unavailable(&error))
}

/// Logs the cause; the user is told only that it is not theirs.
fn unavailable(error: &(dyn std::error::Error + 'static)) -> DependencyError {
    error!(error = %Chain(error), "dependencies cannot be built");
    DependencyError::Unavailable
}

fn epoch_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// npm's own files are not part of a tree: links to programs, and its list of what it installed.
fn is_content(entry: &DirEntry) -> bool {
    entry.file_name() != ".bin" && entry.file_name() != ".package-lock.json"
}

/// Packages with compiled code, or code to be compiled.
fn native_packages(tree: &Path) -> Vec<String> {
    let native: BTreeSet<String> = WalkDir::new(tree)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| {
            entry.file_name() == "binding.gyp"
                || entry.path().extension().is_some_and(|extension| extension == "node")
        })
        .filter_map(|entry| package_of(entry.path().strip_prefix(tree).ok()?))
        .collect();
    native.into_iter().collect()
}

/// The innermost package a file of a tree belongs to.
fn package_of(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let start = parts.iter().rposition(|part| *part == "node_modules").map_or(0, |at| at + 1);
    let name = parts.get(start)?;
    if name.starts_with('@') {
        Some(format!("{name}/{}", parts.get(start + 1)?))
    } else {
        Some((*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_the_innermost_package() {
        for (path, package) in [
            ("a/build/x.node", "a"),
            ("@s/a/binding.gyp", "@s/a"),
            ("a/node_modules/b/x.node", "b"),
        ] {
            assert_eq!(package_of(Path::new(path)).as_deref(), Some(package), "{path}");
        }
    }

    #[test]
    fn no_directory_is_made_again_of_a_build_that_was_given_up() {
        let work_dir = tempfile::tempdir().unwrap();
        let npm = Npm {
            program: PathBuf::new(),
            user_config: None,
            cache_dir: PathBuf::new(),
            timeout: Duration::ZERO,
            tree_bytes: 0,
            tree_files: 0,
            home_bytes: 0,
            download_bytes: 0,
        };
        let dir = work_dir.path().join("npm-x");
        let (tree, archive) = (dir.join("node_modules"), dir.join("node_modules.tar.gz"));
        assert!(pack_tree(&npm, &tree, &archive).is_err());
        assert!(!dir.exists());
        // Nothing may have been installed, and something may.
        std::fs::create_dir(&dir).unwrap();
        for _ in 0..2 {
            assert_eq!(pack_tree(&npm, &tree, &archive).unwrap().0.tree_files, 0);
        }
    }
}
