//! Dependency sets: what the API asks the sandbox to build, since only the sandbox runs npm.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ids::DepHash;

/// The format of [`TreeMetadata`] and of the packed tree. A change of either raises it, and with
/// it every `depHash`.
pub const TREE_FORMAT_VERSION: u32 = 1;

/// npm's own bound on names.
const MAX_NAME_BYTES: usize = 214;
const MAX_RANGE_BYTES: usize = 256;

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
    /// Subresource integrity from the lock file; empty if it lies in the archive of another package,
    /// whose integrity covers it.
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

/// Whether npm would take this as the name of a package: URL-safe (old packages have upper case), no
/// leading dot or underscore, at most one scope.
#[must_use]
pub fn is_package_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '~')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let is_name = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(s, n)| is_part(s) && is_part(n)),
        None => is_part(name),
    };
    is_name
        && name.len() <= MAX_NAME_BYTES
        && !matches!(name, "node_modules" | "favicon.ico")
        && !is_tarball(name)
}

/// Whether this is a range or a tag of the registry. They are made of these characters; paths,
/// addresses and aliases need `:`, `/` or `\`, and options would begin with `-`.
#[must_use]
pub fn is_range_or_tag(range: &str) -> bool {
    range.len() <= MAX_RANGE_BYTES
        && !range.starts_with(['-', '.'])
        && !is_tarball(range)
        && range.bytes().all(|b| b.is_ascii_alphanumeric() || b" .-_^~<>=|*+".contains(&b))
}

/// npm takes what ends like this for a file, whatever stands before it.
#[must_use]
pub fn is_tarball(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [".tgz", ".tar.gz", ".tar"].iter().any(|ending| text.ends_with(ending))
}
