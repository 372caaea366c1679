//! Dependency sets: what the API asks the sandbox to build, since only the sandbox runs npm.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ids::DepHash;

/// The format of [`TreeMetadata`] and of the packed tree. A change of either raises it, and with
/// it every `depHash`.
pub const TREE_FORMAT_VERSION: u32 = 1;

/// What a deploy wants installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DependencySpec {
    /// Package name to version range, as in `package.json`.
    pub dependencies: BTreeMap<String, String>,
    /// A `package-lock.json` the user sent; it is honoured.
    pub package_lock: Option<String>,
    /// Resolve ranges again instead of taking what they were resolved to before.
    pub refresh: bool,
}

/// Whether the tree existed before the deploy that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheOutcome {
    /// It did; no npm process ran.
    Hit,
    /// It was built for this deploy.
    Miss,
}

/// A dependency set that is stored and ready for use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltDependencies {
    /// The exact set.
    pub dep_hash: DepHash,
    /// Hit or miss.
    pub cache: CacheOutcome,
    /// What is known of the tree.
    pub metadata: TreeMetadata,
}

/// One package of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPackage {
    /// Where it is installed: `node_modules/a/node_modules/b`.
    pub path: String,
    /// Package name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Subresource integrity from the lock file; empty where npm gives none.
    pub integrity: String,
}

/// What is stored beside a packed tree as `metadata.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeMetadata {
    /// [`TREE_FORMAT_VERSION`].
    pub format_version: u32,
    /// SHA-256 (hex) of `node_modules.tar.gz`; verified when it enters a node's cache.
    pub archive_sha256: String,
    /// Size of `node_modules.tar.gz`.
    pub archive_bytes: u64,
    /// Extracted size.
    pub tree_bytes: u64,
    /// Extracted files.
    pub tree_files: u32,
    /// Every package, sorted by path.
    pub packages: Vec<ResolvedPackage>,
    /// Names of packages that bring native code (`.node`, `binding.gyp`); never inlined.
    pub native_packages: Vec<String>,
}

/// Why a dependency set could not be built.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyError {
    /// The user's input is the cause; the message is npm's, or names the limit, and is fit for
    /// users.
    #[error("{0}")]
    Rejected(String),
    /// The platform is the cause; details are in its log.
    #[error("dependencies could not be built; try again")]
    Unavailable,
}

/// Builds dependency sets. Implemented by the sandbox, in process or remote.
#[async_trait]
pub trait DependencyBuilder: Send + Sync {
    /// Resolves and, unless the tree is stored already, installs and stores it. Two concurrent
    /// builds of one set are one build.
    async fn build(&self, spec: DependencySpec) -> Result<BuiltDependencies, DependencyError>;
}
