//! Dependency sets: what the API asks the sandbox to build, since only the sandbox runs npm.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::DepHash;

/// The format of [`TreeMetadata`] and of the packed tree. A change of either raises it, and with
/// it every `depHash`.
pub const TREE_FORMAT_VERSION: u32 = 1;

/// npm's own bound on names.
const MAX_NAME_BYTES: usize = 214;
const MAX_RANGE_BYTES: usize = 256;

/// Entries of `overrides`, and how deep they may be within each other.
const MAX_OVERRIDES: usize = 500;
const MAX_OVERRIDE_DEPTH: usize = 10;

/// What of an entry is told.
const MAX_TOLD_CHARS: usize = 100;

/// What a deploy wants installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DependencySpec {
    /// Package name to version range, as in `package.json`.
    pub dependencies: BTreeMap<String, String>,
    /// Likewise, of packages that are left out where they cannot be installed.
    #[serde(default)]
    pub optional_dependencies: BTreeMap<String, String>,
    /// What packages are replaced with wherever they are needed: the `overrides` of a `package.json`, a
    /// JSON object.
    #[serde(default)]
    pub overrides: Option<String>,
    /// A `package-lock.json` the user sent; it is honoured.
    pub package_lock: Option<String>,
    /// Resolve ranges again instead of taking what they were resolved to before.
    pub refresh: bool,
    /// What the account may add to the stored trees in a day, if it has: then only a set whose tree is
    /// stored is to be had.
    #[serde(default)]
    pub spent_bytes: Option<u64>,
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
fn is_range_or_tag(range: &str) -> bool {
    range.len() <= MAX_RANGE_BYTES
        && !range.starts_with(['-', '.'])
        && !is_tarball(range)
        && range.bytes().all(|b| b.is_ascii_alphanumeric() || b" .-_^~<>=|*+".contains(&b))
}

/// Whether the registry alone is asked for this: a range or a tag of a package, or of another one that
/// is installed under its name (`npm:NAME@RANGE`).
#[must_use]
pub fn is_of_registry(spec: &str) -> bool {
    match aliased(spec) {
        Some((name, range)) => is_package_name(name) && is_range_or_tag(range),
        None => is_range_or_tag(spec),
    }
}

/// What `npm:NAME` or `npm:NAME@RANGE` stands for, as it is written: name and range.
#[must_use]
pub fn aliased(spec: &str) -> Option<(&str, &str)> {
    spec.strip_prefix("npm:").map(|other| name_and_range(other).unwrap_or((other, "")))
}

/// The parts of `NAME@RANGE`; `None` if there is no range. The name may begin with the `@` of a scope,
/// the range may have more of them.
#[must_use]
pub fn name_and_range(text: &str) -> Option<(&str, &str)> {
    let scope = usize::from(text.starts_with('@'));
    let at = scope + text[scope..].find('@')?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether these may be the `overrides` of a `package.json`: packages, or ranges of them, and what they
/// are replaced with, from the registry too. The error is fit for users.
pub fn check_overrides(overrides: &Map<String, Value>) -> Result<(), String> {
    let mut left = MAX_OVERRIDES;
    check_level(overrides, 0, &mut left)
}

fn check_level(level: &Map<String, Value>, depth: usize, left: &mut usize) -> Result<(), String> {
    for (key, value) in level {
        let enough = || format!("may have at most {MAX_OVERRIDES} entries");
        *left = left.checked_sub(1).ok_or_else(enough)?;
        let told: String = key.chars().take(MAX_TOLD_CHARS).collect();
        let (name, range) = name_and_range(key).unwrap_or((key.as_str(), ""));
        // The package around, itself.
        let is_outer = key == "." && depth > 0;
        if !(is_outer || is_package_name(name) && is_range_or_tag(range)) {
            return Err(format!("{told:?} is not the name of a package, or name@range"));
        }
        match value {
            Value::String(spec) if is_of_registry(spec) => {}
            Value::Object(inner) if !is_outer && depth < MAX_OVERRIDE_DEPTH => {
                check_level(inner, depth + 1, left)?;
            }
            _ => {
                return Err(format!(
                    "{told:?} must be replaced with a version, range, tag or alias (npm:name@range) \
                     of the npm registry"
                ));
            }
        }
    }
    Ok(())
}

/// npm takes what ends like this for a file, whatever stands before it.
#[must_use]
pub fn is_tarball(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [".tgz", ".tar.gz", ".tar"].iter().any(|ending| text.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_registry_is_asked_for_ranges_tags_and_aliases() {
        for spec in ["", "*", "^1.2.3 || >=2 <3", "latest", "npm:b", "npm:b@^1", "npm:@s/b@1.0.0"] {
            assert!(is_of_registry(spec), "{spec}");
        }
        for spec in [
            "file:..",
            "npm:",
            "npm:@s",
            "npm:@s@1",
            "npm:../b@1",
            "npm:b@npm:c@1",
            "npm:b@github:u/r",
            "npm:b@http://10.0.0.1/x",
            "npm:b@x.tgz",
            "npm:b.tgz",
            "npm:-g",
            "npm:b@-g",
            "NPM:b@1",
            " npm:b@1",
        ] {
            assert!(!is_of_registry(spec), "{spec}");
        }
    }

    #[test]
    fn what_packages_are_replaced_with_is_of_the_registry_too() {
        let check = |overrides: Value| check_overrides(overrides.as_object().unwrap());
        for overrides in [
            json!({}),
            json!({ "a": "1.0.0", "@s/b@^1": "npm:c@2", "d": { ".": "1", "e": { "f@2": "" } } }),
        ] {
            assert_eq!(check(overrides.clone()), Ok(()), "{overrides}");
        }
        for spec in ["github:u/r", "file:..", "http://10.0.0.1/x.tgz", "u/r", "$a", "npm:b@u/r"] {
            for overrides in [
                json!({ "a": spec }),
                json!({ "a": { ".": spec } }),
                json!({ "a": { "b": { "c@1": spec } } }),
                json!({ (format!("a@{spec}")): "1" }),
            ] {
                assert!(check(overrides.clone()).is_err(), "{overrides}");
            }
        }
        let mut deep = json!("1");
        for _ in 0..20 {
            deep = json!({ "a": deep });
        }
        let many: Map<String, Value> =
            (0..=MAX_OVERRIDES).map(|n| (format!("a{n}"), json!("1"))).collect();
        for overrides in [
            json!({ ".": "1" }),
            json!({ "../a": "1" }),
            json!({ "a": 1 }),
            json!({ "a": null }),
            json!({ "a": { ".": { "b": "1" } } }),
            deep,
            Value::Object(many),
        ] {
            assert!(check(overrides.clone()).is_err(), "{overrides}");
        }
    }

    #[test]
    fn names_end_at_the_first_at_that_is_no_scope() {
        for (text, expected) in [
            ("a", None),
            ("@s/a", None),
            ("a@1", Some(("a", "1"))),
            ("@s/a@", Some(("@s/a", ""))),
            ("a@npm:@s/b@1", Some(("a", "npm:@s/b@1"))),
        ] {
            assert_eq!(name_and_range(text), expected, "{text}");
        }
    }
}
