//! The identity of a tree.
//!
//! It is made of the packages of a lock file: names, versions, integrities and where they are installed, so
//! that equal hash means equal layout and not just equal packages. npm leaves out some that a lock file
//! lists: what is optional and made for another system, and what only such a package needs. Users send
//! lock files, so what decides that is part of the identity where it decides anything. Else one of them
//! could say of any package that it is made for another system, and the tree without it would be that of
//! all who install the same packages.

use std::collections::BTreeMap;

use cloudserve_protocol::build::{DependencyError, ResolvedPackage, TREE_FORMAT_VERSION};
use cloudserve_protocol::ids::DepHash;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::lockfile::unreadable;

/// With one of these, something may be left out or come in the archive of another package.
const CHOOSING: [&str; 8] = [
    "optional",
    "devOptional",
    "optionalDependencies",
    "bundleDependencies",
    "hasShrinkwrap",
    "os",
    "cpu",
    "libc",
];

/// By these and by [`CHOOSING`] npm decides what.
const DECIDING: [&str; 4] = ["dependencies", "peerDependencies", "peerDependenciesMeta", "engines"];

#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, BTreeMap<String, Value>>,
}

/// The hash of the tree that npm makes of its lock file, in which these packages were found.
pub(super) fn dep_hash(
    platform: &str,
    packages: &[ResolvedPackage],
    lock: &str,
) -> Result<DepHash, DependencyError> {
    let mut hasher = Sha256::new();
    hasher.update(format!("cloudserve-deps {TREE_FORMAT_VERSION}\n{platform}\n"));
    for ResolvedPackage { path, name, version, integrity } in packages {
        hasher.update(format!("{name}@{version} {integrity} {path}\n"));
    }
    if let Some(choice) = choice(lock).map_err(|error| unreadable(&error))? {
        hasher.update(format!("{choice}\n"));
    }
    Ok(DepHash::from_digest(hasher.finalize().into()))
}

/// What decides which packages are left out, as one line; `None` if none is. npm writes lock files with
/// sorted keys.
fn choice(lock: &str) -> Result<Option<String>, serde_json::Error> {
    let mut listed = serde_json::from_str::<Lock>(lock)?.packages;
    // The project's own. Of what is optional there, a part may go with another one unless it is named.
    let project = listed.remove("");
    if let Some(Value::Object(optional)) =
        project.and_then(|mut project| project.remove("optionalDependencies"))
    {
        let names: Vec<_> = optional.keys().collect();
        let named = BTreeMap::from([("optionalDependencies".to_owned(), json!(names))]);
        listed.insert(String::new(), named);
    }
    let is_choosing = |field: &str| CHOOSING.contains(&field);
    if !listed.values().any(|package| package.keys().any(|field| is_choosing(field))) {
        return Ok(None);
    }
    for package in listed.values_mut() {
        package.retain(|field, _| is_choosing(field) || DECIDING.contains(&field.as_str()));
    }
    serde_json::to_string(&listed).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::lockfile::packages;

    fn hash(listed: &Value) -> DepHash {
        let lock = json!({ "lockfileVersion": 3, "packages": listed }).to_string();
        dep_hash("p", &packages(&lock).unwrap(), &lock).unwrap()
    }

    #[test]
    fn the_hash_tells_versions_and_layouts_apart() {
        let of = |path: &str, version: &str| {
            hash(&json!({ path: { "version": version, "integrity": "sha512-x" } }))
        };
        assert_eq!(of("node_modules/a", "1.0.0"), of("node_modules/a", "1.0.0"));
        assert_ne!(of("node_modules/a", "1.0.0"), of("node_modules/a", "2.0.0"));
        let below_b = of("node_modules/b/node_modules/a", "1.0.0");
        assert_ne!(of("node_modules/a", "1.0.0"), below_b);
    }

    #[test]
    fn who_has_a_package_left_out_gets_a_tree_of_their_own() {
        let listed = json!({
            "": { "dependencies": { "a": "1" } },
            "node_modules/a":
                { "version": "1.0.0", "integrity": "sha512-x", "dependencies": { "b": "1" } },
            "node_modules/b": { "version": "1.0.0", "integrity": "sha512-y" },
        });
        let of_all = hash(&listed);
        let changed = |package: &str, field: &str, value: Value| {
            let mut listed = listed.clone();
            listed[package][field] = value;
            listed
        };
        // What decides nothing is not part of it.
        let licensed = changed("node_modules/a", "license", json!("MIT"));
        assert_eq!(hash(&licensed), of_all);
        assert_eq!(hash(&changed("", "dependencies", json!({ "a": "^1" }))), of_all);
        for (package, field, value) in [
            ("node_modules/b", "optional", json!(true)),
            ("node_modules/b", "os", json!(["win32"])),
            ("node_modules/b", "cpu", json!(["wasm32"])),
            ("node_modules/a", "optionalDependencies", json!({ "b": "1" })),
            ("node_modules/a", "bundleDependencies", json!(["b"])),
        ] {
            assert_ne!(hash(&changed(package, field, value)), of_all, "{package} {field}");
        }
        // So does who names it.
        let mut named = changed("node_modules/b", "optional", json!(true));
        named["node_modules/a"]["optional"] = json!(true);
        named[""] = json!({ "optionalDependencies": { "a": "1" } });
        let of_one = hash(&named);
        named[""]["optionalDependencies"]["a"] = json!("^1");
        assert_eq!(hash(&named), of_one);
        named[""]["optionalDependencies"]["b"] = json!("^1");
        assert_ne!(hash(&named), of_one);
        // Who needs an optional package decides whether it goes with another one.
        let mut optional = changed("node_modules/b", "optional", json!(true));
        let before = hash(&optional);
        optional["node_modules/a"]["dependencies"] = json!({});
        assert_ne!(hash(&optional), before);
    }
}
