//! `package-lock.json`: what npm resolved, or what a user sent.

use std::collections::BTreeMap;

use cloudserve_protocol::build::{DependencyError, ResolvedPackage, TREE_FORMAT_VERSION};
use cloudserve_protocol::ids::DepHash;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    lockfile_version: u32,
    #[serde(default)]
    packages: BTreeMap<String, LockedPackage>,
}

#[derive(Debug, Deserialize)]
struct LockedPackage {
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    name: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    dev: bool,
}

fn refused(message: impl Into<String>) -> DependencyError {
    DependencyError::Rejected(message.into())
}

/// Every package of a lock file, sorted by path; refuses what does not come from the registry.
pub(super) fn packages(text: &str) -> Result<Vec<ResolvedPackage>, DependencyError> {
    let lock: Lock = serde_json::from_str(text)
        .map_err(|error| refused(format!("the lock file cannot be read: {error}")))?;
    if !matches!(lock.lockfile_version, 2 | 3) {
        return Err(refused(format!(
            "lock file version {} is not supported; npm 7 and later write 2 or 3",
            lock.lockfile_version
        )));
    }
    let entries =
        lock.packages.into_iter().filter(|(path, package)| !path.is_empty() && !package.dev);
    entries.map(|(path, package)| resolved(path, package)).collect()
}

fn resolved(path: String, package: LockedPackage) -> Result<ResolvedPackage, DependencyError> {
    let name = match (package.name, path.rsplit_once("node_modules/")) {
        (Some(name), _) => name,
        (None, Some((_, name))) => name.to_owned(),
        (None, None) => {
            return Err(refused(format!("the lock file holds {path:?}, which is no package")));
        }
    };
    let is_safe_path = path.starts_with("node_modules/")
        && path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".");
    let from_registry = match package.resolved.as_deref() {
        // Its host is not ours to judge: npm asks the operator's registry whatever stands there.
        Some(url) => url.starts_with("https://") || url.starts_with("http://"),
        None => true,
    };
    let is_tarball = package
        .resolved
        .as_deref()
        .is_none_or(|url| url.split('?').next().unwrap_or(url).rsplit('.').next() == Some("tgz"));
    let (Some(version), Some(integrity)) = (package.version, package.integrity) else {
        return Err(refused(format!("{name} does not come from the registry with an integrity")));
    };
    if package.link || !is_safe_path || !from_registry || !is_tarball {
        return Err(refused(format!("{name}@{version} does not come from the registry")));
    }
    Ok(ResolvedPackage { path, name, version, integrity })
}

/// The lock file without the addresses in it: what is fetched is decided by name, version and
/// integrity, and only from the operator's registry.
pub(super) fn without_addresses(text: &str) -> Option<String> {
    let mut lock: serde_json::Value = serde_json::from_str(text).ok()?;
    let packages = lock.get_mut("packages")?.as_object_mut()?;
    for package in packages.values_mut().filter_map(serde_json::Value::as_object_mut) {
        package.remove("resolved");
    }
    // The list of version 1, which npm no longer needs, holds addresses too.
    lock.as_object_mut()?.remove("dependencies");
    Some(lock.to_string())
}

/// The identity of a tree. The install path is part of it, so that equal hash means equal layout
/// and not just equal packages.
pub(super) fn dep_hash(platform: &str, packages: &[ResolvedPackage]) -> DepHash {
    let mut hasher = Sha256::new();
    hasher.update(format!("cloudserve-deps {TREE_FORMAT_VERSION}\n{platform}\n"));
    for ResolvedPackage { path, name, version, integrity } in packages {
        hasher.update(format!("{name}@{version} {integrity} {path}\n"));
    }
    DepHash::from_digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(package: &str) -> String {
        format!(
            r#"{{"lockfileVersion":3,"packages":{{"":{{"name":"x"}},"node_modules/a":{package}}}}}"#
        )
    }

    #[test]
    fn only_registry_packages_with_integrity_are_taken() {
        for (package, ok) in [
            (r#"{"version":"1.0.0","integrity":"sha512-x"}"#, true),
            (
                r#"{"version":"1.0.0","integrity":"sha512-x","resolved":"https://r/a/-/a-1.0.0.tgz"}"#,
                true,
            ),
            (r#"{"version":"1.0.0"}"#, false),
            (r#"{"version":"1.0.0","integrity":"x","resolved":"git+ssh://git@h/a.git#1"}"#, false),
            (r#"{"version":"1.0.0","integrity":"x","resolved":"file:../../etc"}"#, false),
            (r#"{"resolved":"../b","link":true}"#, false),
        ] {
            assert_eq!(packages(&lock(package)).is_ok(), ok, "{package}");
        }
        assert!(packages(r#"{"lockfileVersion":1,"dependencies":{}}"#).is_err());
        assert!(packages("no json").is_err());
        let outside = r#"{"lockfileVersion":3,"packages":{"node_modules/../../a":{"version":"1","integrity":"x"}}}"#;
        assert!(packages(outside).is_err());
    }

    #[test]
    fn the_hash_tells_versions_and_layouts_apart() {
        let of = |path: &str, version: &str| {
            let package = ResolvedPackage {
                path: path.into(),
                name: "a".into(),
                version: version.into(),
                integrity: "i".into(),
            };
            dep_hash("p", &[package])
        };
        assert_eq!(of("node_modules/a", "1"), of("node_modules/a", "1"));
        assert_ne!(of("node_modules/a", "1"), of("node_modules/a", "2"));
        assert_ne!(of("node_modules/a", "1"), of("node_modules/b/node_modules/a", "1"));
    }

    #[test]
    fn addresses_are_dropped() {
        let text = lock(r#"{"version":"1","integrity":"x","resolved":"https://r/a-1.tgz"}"#);
        assert!(!without_addresses(&text).unwrap().contains("https://"));
    }
}
