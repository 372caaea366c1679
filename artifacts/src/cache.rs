//! The artifacts of this node: verified when they enter, shared while they are used, evicted when
//! room is needed.
//!
//! ```text
//! bundles/<function>-<bundleHash>/    bundle.js, bundle.js.map, files of the project
//! trees/<depHash>/node_modules/
//! versions/<function>-<bundleHash>-<depHash>/   links to both
//! code/<function>-<bundleHash>-<tag>  V8's code cache
//! incoming/                           not complete, or evicted; emptied when the cache is opened
//! ```
//! Entries appear by rename. They are not synced: a cache that was written before the machine
//! last booted is emptied instead.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore, assets_of};
use cloudserve_protocol::build::{TREE_FORMAT_VERSION, TreeMetadata};
use cloudserve_protocol::call::Target;
use cloudserve_protocol::ids::{BundleHash, DepHash, FunctionId};
use cloudserve_protocol::limits::PlatformLimits;
use futures::StreamExt;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tracing::{debug, warn};

use crate::unpack::{UnpackBounds, UnpackError, unpack};

const BUNDLE: &str = "bundle.js";
const SOURCE_MAP: &str = "bundle.js.map";
const NODE_MODULES: &str = "node_modules";
const INCOMING: &str = "incoming";
const BOOT_FILE: &str = "boot";
const MAX_METADATA_BYTES: u64 = 32 * 1024 * 1024;

/// Bounds of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// What all entries may take; those in use are never evicted.
    pub max_bytes: u64,
    /// Bounds on bundles and trees.
    pub limits: PlatformLimits,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { max_bytes: 10 * 1024 * 1024 * 1024, limits: PlatformLimits::default() }
    }
}

/// Why an artifact is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The store does not have it, or failed.
    #[error("an artifact could not be fetched")]
    Fetch(#[from] ArtifactError),
    /// An archive breaks a rule.
    #[error("the archive {key} was refused")]
    Unpack {
        /// Which.
        key: String,
        /// Which rule.
        #[source]
        source: UnpackError,
    },
    /// The local disk failed.
    #[error("the artifact cache failed at {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The runtime goes down: nothing is begun any more.
    #[error("the artifact cache is closed")]
    Closed,
}

/// One entry. Whoever holds one keeps it from being evicted.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<PathBuf, (Arc<Entry>, u64)>,
    clock: u64,
    bytes: u64,
}

/// The cache. One per node and role; the API and the sandbox of one process share it.
pub struct Cache {
    root: PathBuf,
    store: Arc<dyn ArtifactStore>,
    options: CacheOptions,
    state: Arc<Mutex<State>>,
    flights: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("root", &self.root).finish_non_exhaustive()
    }
}

/// An extracted dependency tree that stays while this is held.
#[derive(Debug, Clone)]
pub struct TreeLease(Arc<Entry>);

impl TreeLease {
    /// The directory that holds `node_modules`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// The files of one version, which stay while this is held.
#[derive(Debug, Clone)]
pub struct VersionLease {
    dir: PathBuf,
    tree: Option<TreeLease>,
    _held: Vec<Arc<Entry>>,
}

impl VersionLease {
    /// The bundle. Its source map, if there is one, lies beside it, and so does `node_modules`
    /// when the version needs it.
    #[must_use]
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.join(BUNDLE)
    }

    /// The real directory behind the link `node_modules`.
    #[must_use]
    pub fn node_modules_path(&self) -> Option<PathBuf> {
        self.tree.as_ref().map(|tree| tree.path().join(NODE_MODULES))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}

impl Cache {
    /// Opens the cache in this directory, making it if need be. Blocks.
    pub fn open(
        dir: &Path,
        store: Arc<dyn ArtifactStore>,
        options: CacheOptions,
    ) -> Result<Self, CacheError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let root = dir.canonicalize().map_err(at(dir))?;
        forget_other_boots(&root)?;
        let incoming = root.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(&incoming).map_err(at(&incoming))?;
        }
        let mut state = State::default();
        for folder in ["bundles", "trees", "versions", "code", INCOMING] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            for entry in fs::read_dir(&folder).map_err(at(&folder))?.flatten() {
                let path = entry.path();
                let bytes = size_of(&path);
                state.insert(Entry { path, bytes });
            }
        }
        let state = Arc::new(Mutex::new(state));
        Ok(Self { root, store, options, state, flights: Mutex::default() })
    }

    /// The files of a version.
    pub async fn version_dir(&self, target: &Target) -> Result<VersionLease, CacheError> {
        let bundle = self.bundle(target.function_id, &target.bundle_hash).await?;
        let Some(dep_hash) = &target.runtime_deps else {
            return Ok(VersionLease { dir: bundle.path.clone(), tree: None, _held: vec![bundle] });
        };
        let tree = self.tree(dep_hash).await?;
        let name = format!("{}-{}-{dep_hash}", target.function_id, target.bundle_hash);
        let path = self.root.join("versions").join(name);
        let linked = self
            .entry(&path, || async {
                let dir = self.incoming_dir()?;
                link_files(&bundle.path, dir.path())?;
                let link = dir.path().join(NODE_MODULES);
                symlink(tree.path().join(NODE_MODULES), &link).map_err(at(&link))?;
                Ok((dir, 0))
            })
            .await?;
        let dir = linked.path.clone();
        Ok(VersionLease { dir, tree: Some(tree), _held: vec![bundle, linked] })
    }

    /// An extracted dependency tree.
    pub async fn tree(&self, hash: &DepHash) -> Result<TreeLease, CacheError> {
        let path = self.root.join("trees").join(hash.as_str());
        self.entry(&path, || self.fetch_tree(hash)).await.map(TreeLease)
    }

    async fn bundle(
        &self,
        function: FunctionId,
        hash: &BundleHash,
    ) -> Result<Arc<Entry>, CacheError> {
        let path = self.root.join("bundles").join(format!("{function}-{hash}"));
        self.entry(&path, || self.fetch_bundle(function, hash)).await
    }

    async fn fetch_bundle(
        &self,
        function: FunctionId,
        hash: &BundleHash,
    ) -> Result<(TempDir, u64), CacheError> {
        let key = ArtifactKey::Bundle { function, hash: hash.clone() };
        let max_bytes = self.options.limits.bundle_bytes;
        let bundle = self.store.get(&key, max_bytes).await?;
        // A map holds its sources and can be several times the bundle.
        let map_key = ArtifactKey::SourceMap { function, hash: hash.clone() };
        let map = match self.store.get(&map_key, max_bytes.saturating_mul(8)).await {
            Ok(map) => map,
            Err(ArtifactError::NotFound { .. } | ArtifactError::TooLarge { .. }) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let dir = self.incoming_dir()?;
        let assets = assets_of(&bundle).map(str::to_owned);
        let mut bytes = (bundle.len() + map.len()) as u64;
        let (wanted, key) = (hash.clone(), key.to_string());
        let dir = blocking(move || {
            if BundleHash::of(&bundle) != wanted {
                return Err(ArtifactError::Corrupt { key }.into());
            }
            let write = |name: &str, bytes: &[u8]| {
                let path = dir.path().join(name);
                fs::write(&path, bytes).map_err(at(&path))
            };
            write(BUNDLE, &bundle)?;
            if !map.is_empty() {
                write(SOURCE_MAP, &map)?;
            }
            Ok(dir)
        })
        .await?;
        if let Some(sha256) = assets {
            let key = ArtifactKey::Assets { function, hash: hash.clone() };
            let into = dir.path().to_owned();
            bytes += self.fetch_assets(key, sha256, into).await?;
        }
        Ok((dir, bytes))
    }

    /// Puts the files that a bundle names beside it; gives the size of their archive.
    async fn fetch_assets(
        &self,
        key: ArtifactKey,
        sha256: String,
        into: PathBuf,
    ) -> Result<u64, CacheError> {
        let limits = &self.options.limits;
        // What cannot be compressed grows a little, and there are headers.
        let max_bytes = limits.source_bytes.saturating_mul(2);
        let archive = self.store.get(&key, max_bytes).await?;
        let key = key.to_string();
        let bounds = UnpackBounds { bytes: limits.source_bytes, entries: limits.source_files };
        blocking(move || {
            if hex::encode(Sha256::digest(&archive)) != sha256 {
                return Err(ArtifactError::Corrupt { key }.into());
            }
            unpack(&archive[..], &into, bounds)
                .map_err(|source| CacheError::Unpack { key, source })?;
            Ok(archive.len() as u64)
        })
        .await
    }

    async fn fetch_tree(&self, hash: &DepHash) -> Result<(TempDir, u64), CacheError> {
        let metadata_key = ArtifactKey::DependencyMetadata { hash: hash.clone() };
        let corrupt = |key: &ArtifactKey| ArtifactError::Corrupt { key: key.to_string() };
        let metadata = self.store.get(&metadata_key, MAX_METADATA_BYTES).await?;
        let metadata: TreeMetadata =
            serde_json::from_slice(&metadata).map_err(|_| corrupt(&metadata_key))?;
        if metadata.format_version != TREE_FORMAT_VERSION {
            return Err(corrupt(&metadata_key).into());
        }
        let key = ArtifactKey::DependencyTree { hash: hash.clone() };
        let dir = self.incoming_dir()?;
        let archive = dir.path().join("archive");
        let file = File::create(&archive).map_err(at(&archive))?;
        if self.download(&key, file, &archive).await? != metadata.archive_sha256 {
            return Err(corrupt(&key).into());
        }
        let limits = &self.options.limits;
        let bounds = UnpackBounds {
            bytes: limits.dependency_tree_bytes.min(metadata.tree_bytes),
            // Directories count too, and there are no more of them than files and packages.
            entries: limits.dependency_tree_files.saturating_mul(2),
        };
        let (key, bytes) = (key.to_string(), metadata.tree_bytes);
        blocking(move || {
            let file = File::open(&archive).map_err(at(&archive))?;
            unpack(io::BufReader::new(file), dir.path(), bounds)
                .map_err(|source| CacheError::Unpack { key, source })?;
            fs::remove_file(&archive).map_err(at(&archive))?;
            // A tree of no packages has no directory of its own in the archive.
            fs::create_dir_all(dir.path().join(NODE_MODULES)).map_err(at(dir.path()))?;
            Ok((dir, bytes))
        })
        .await
    }

    /// Writes an object to a file; gives the SHA-256 of what was written.
    async fn download(
        &self,
        key: &ArtifactKey,
        mut file: File,
        path: &Path,
    ) -> Result<String, CacheError> {
        let mut pieces = self.store.stream(key).await?;
        let mut hasher = Sha256::new();
        let max_bytes = self.options.limits.dependency_tree_bytes;
        let mut bytes = 0_u64;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            bytes += piece.len() as u64;
            if bytes > max_bytes {
                return Err(ArtifactError::TooLarge { key: key.to_string(), max_bytes }.into());
            }
            hasher.update(&piece);
            file.write_all(&piece).map_err(at(path))?;
        }
        Ok(hex::encode(hasher.finalize()))
    }

    /// V8's code cache for this bundle, made by a worker of this tag.
    pub fn code_cache(
        &self,
        function: FunctionId,
        hash: &BundleHash,
        tag: &str,
    ) -> Option<PathBuf> {
        let path = self.code_path(function, hash, tag);
        self.state.lock().touch(&path).map(|entry| entry.path.clone())
    }

    /// Keeps V8's code cache for this bundle, made by a worker of this tag.
    pub async fn store_code_cache(
        &self,
        function: FunctionId,
        hash: &BundleHash,
        tag: &str,
        bytes: Bytes,
    ) -> Result<(), CacheError> {
        let path = self.code_path(function, hash, tag);
        let incoming = self.root.join(INCOMING);
        let evicted = self.make_room(bytes.len() as u64);
        let to = path.clone();
        let size = bytes.len() as u64;
        blocking(move || {
            remove(&evicted);
            let mut file = tempfile::NamedTempFile::new_in(&incoming).map_err(at(&incoming))?;
            file.write_all(&bytes).map_err(at(file.path()))?;
            file.persist(&to).map_err(|error| at(&to)(error.error))?;
            Ok(())
        })
        .await?;
        self.state.lock().insert(Entry { path, bytes: size });
        Ok(())
    }

    fn code_path(&self, function: FunctionId, hash: &BundleHash, tag: &str) -> PathBuf {
        let tag = hex::encode(&Sha256::digest(tag.as_bytes())[..8]);
        self.root.join("code").join(format!("{function}-{hash}-{tag}"))
    }

    fn incoming_dir(&self) -> Result<TempDir, CacheError> {
        let incoming = self.root.join(INCOMING);
        TempDir::new_in(&incoming).map_err(at(&incoming))
    }

    /// The entry at this path; `make` makes it in a directory that then becomes it. Made once,
    /// however many ask.
    async fn entry<F>(
        &self,
        path: &Path,
        make: impl FnOnce() -> F,
    ) -> Result<Arc<Entry>, CacheError>
    where
        F: Future<Output = Result<(TempDir, u64), CacheError>>,
    {
        if let Some(entry) = self.state.lock().touch(path) {
            return Ok(entry);
        }
        let turn = self.flight(path).lock_owned().await;
        if let Some(entry) = self.state.lock().touch(path) {
            return Ok(entry);
        }
        let (dir, bytes) = make().await?;
        let evicted = self.make_room(bytes);
        let (to, state) = (path.to_owned(), self.state.clone());
        // All of it even if whoever asks has gone meanwhile: a directory that is in its place and in no
        // list would be in the way of those who ask later.
        blocking(move || {
            let _turn = turn;
            remove(&evicted);
            let from = dir.path();
            // mkdtemp makes private directories; workers may run as another user.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(from, mode).map_err(at(from))?;
            fs::rename(from, &to).map_err(at(&to))?;
            drop(dir.keep());
            Ok(state.lock().insert(Entry { path: to, bytes }))
        })
        .await
    }

    /// The lock under which one entry is made once, however many ask.
    fn flight(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock();
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        flights.entry(path.to_owned()).or_default().clone()
    }

    /// Takes the least recently used entries that nobody holds out of the cache until `bytes` fit.
    /// What is to be removed of them has other names by then: it may take long, and what is asked for
    /// again meanwhile is made anew.
    fn make_room(&self, bytes: u64) -> Vec<PathBuf> {
        let mut state = self.state.lock();
        let mut evicted = Vec::new();
        while state.bytes.saturating_add(bytes) > self.options.max_bytes {
            let oldest = state
                .entries
                .values()
                .filter(|(entry, _)| Arc::strong_count(entry) == 1)
                .min_by_key(|(_, used)| *used)
                .map(|(entry, _)| entry.path.clone());
            let Some(path) = oldest else { break };
            state.remove(&path);
            debug!(path = %path.display(), "evicted");
            state.clock += 1;
            let aside = self.root.join(INCOMING).join(format!("evicted-{}", state.clock));
            evicted.push(match fs::rename(&path, &aside) {
                Ok(()) => aside,
                Err(_) => path,
            });
        }
        evicted
    }
}

impl State {
    fn touch(&mut self, path: &Path) -> Option<Arc<Entry>> {
        self.clock += 1;
        let (entry, used) = self.entries.get_mut(path)?;
        *used = self.clock;
        Some(entry.clone())
    }

    fn insert(&mut self, entry: Entry) -> Arc<Entry> {
        self.remove(&entry.path.clone());
        self.clock += 1;
        self.bytes += entry.bytes;
        let entry = Arc::new(entry);
        self.entries.insert(entry.path.clone(), (entry.clone(), self.clock));
        entry
    }

    fn remove(&mut self, path: &Path) {
        if let Some((entry, _)) = self.entries.remove(path) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(lost) => match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(CacheError::Closed),
        },
    }
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if let Err(error) = removed {
            warn!(path = %path.display(), %error, "an evicted entry could not be removed");
        }
    }
}

/// Gives a directory the files of another.
fn link_files(from: &Path, to: &Path) -> Result<(), CacheError> {
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.map_err(|error| at(from)(error.into()))?;
        let path = entry.path();
        let linked = to.join(path.strip_prefix(from).expect("walked from there"));
        let made = if entry.file_type().is_dir() {
            fs::create_dir(&linked)
        } else {
            fs::hard_link(path, &linked)
        };
        made.map_err(at(path))?;
    }
    Ok(())
}

fn size_of(path: &Path) -> u64 {
    walkdir::WalkDir::new(path)
        .into_iter()
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum()
}

/// Empties a cache of an earlier boot: what it wrote last may not have reached the disk.
fn forget_other_boots(root: &Path) -> Result<(), CacheError> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = root.join(BOOT_FILE);
    if fs::read_to_string(&file).is_ok_and(|known| known == boot) {
        return Ok(());
    }
    for entry in fs::read_dir(root).map_err(at(root))?.flatten() {
        remove(&[entry.path()]);
    }
    fs::write(&file, boot).map_err(at(&file))
}

#[cfg(test)]
mod tests;
