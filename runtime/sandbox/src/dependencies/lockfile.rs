//! `package-lock.json`: what npm resolved, or what a user sent.
//!
//! A lock file tells npm what to fetch, and from where; npm even asks git for what the map of some
//! package in it names. Invariant: of a user's lock file npm gets only what was read here: packages
//! of the registry, each with its integrity, what they depend on there and what they bring along in
//! their archives.

use std::collections::BTreeMap;

use cloudserve_protocol::build::{
    DependencyError, ResolvedPackage, aliased, is_package_name, is_tarball,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const MAX_VERSION_CHARS: usize = 256;

/// What of a specification is told to the user.
const MAX_TOLD_CHARS: usize = 100;

/// Hashes that npm knows, as they begin an integrity.
const HASHES: [&str; 4] = ["sha1-", "sha256-", "sha384-", "sha512-"];

/// What a package depends on, in all the ways of which npm is told.
const SPECS: [&str; 3] = ["dependencies", "optionalDependencies", "peerDependencies"];

/// What is told of what lies beside the project.
const BESIDE: &str = "workspaces and linked directories or archives are not installed. Put their code among \
                      the function's files and import it from there, or publish it; then make the lock \
                      file again for the function's folder alone";

/// Names of packages that lie in the archive of the one that says so. npm fetches none of them.
const BUNDLED: &str = "bundleDependencies";

/// What npm gets of a package of a user's lock file. No addresses; nothing that is linked, run or
/// developed.
const KEPT: [&str; 16] = [
    "name",
    "version",
    "integrity",
    "dependencies",
    "optionalDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "optional",
    "devOptional",
    "peer",
    "engines",
    "os",
    "cpu",
    "libc",
    "hasShrinkwrap",
    BUNDLED,
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    lockfile_version: u32,
    #[serde(default)]
    packages: Listed,
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
    #[serde(default, rename = "inBundle")]
    in_bundle: bool,
}

type Listed = BTreeMap<String, LockedPackage>;

fn refused(message: impl Into<String>) -> DependencyError {
    DependencyError::Rejected(message.into())
}

pub(super) fn unreadable(error: &serde_json::Error) -> DependencyError {
    refused(format!("the lock file cannot be read: {error}"))
}

/// Every package of a lock file, sorted by path; refuses what does not come from the registry.
pub(super) fn packages(text: &str) -> Result<Vec<ResolvedPackage>, DependencyError> {
    let lock: Lock = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    if !matches!(lock.lockfile_version, 2 | 3) {
        return Err(refused(format!(
            "lock file version {} is not supported; npm 7 and later write 2 or 3",
            lock.lockfile_version
        )));
    }
    let listed = &lock.packages;
    let entries = listed.iter().filter(|(path, package)| !path.is_empty() && !package.dev);
    entries.map(|(path, package)| resolved(path, package, listed)).collect()
}

/// Each part is held to its form: npm makes addresses of them, and
/// [`dep_hash`](super::tree_hash::dep_hash) lines.
fn resolved(
    path: &str,
    package: &LockedPackage,
    listed: &Listed,
) -> Result<ResolvedPackage, DependencyError> {
    let is_file = package.resolved.as_deref().is_some_and(|from| from.starts_with("file:"));
    if package.link || is_file || !path.starts_with("node_modules/") {
        return Err(refused(format!("the lock file holds {:?}: {BESIDE}", shortened(path))));
    }
    let own_name = path.rsplit_once("node_modules/").map_or(path, |(_, name)| name);
    let name = package.name.as_deref().unwrap_or(own_name);
    let from_registry = match package.resolved.as_deref() {
        // Its host is not ours to judge: npm asks the operator's registry whatever stands there.
        Some(url) => url.starts_with("https://") || url.starts_with("http://"),
        None => true,
    };
    let is_archive = package
        .resolved
        .as_deref()
        .is_none_or(|url| url.split('?').next().unwrap_or(url).rsplit('.').next() == Some("tgz"));
    let is_carried = is_carried(path, package, listed);
    let integrity = package.integrity.as_deref().or(is_carried.then_some(""));
    let (Some(version), Some(integrity)) = (package.version.as_deref(), integrity) else {
        return Err(refused(format!(
            "{} does not come from the registry with an integrity",
            shortened(name)
        )));
    };
    let is_well_formed = is_place(path)
        && is_package_name(name)
        && is_version(version)
        && (is_carried || is_integrity(integrity));
    if !is_well_formed || !from_registry || !is_archive {
        let (name, version) = (shortened(name), shortened(version));
        return Err(refused(format!("{name}@{version} does not come from the registry")));
    }
    Ok(ResolvedPackage {
        path: path.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        integrity: integrity.to_owned(),
    })
}

/// Whether a package has no integrity of its own because it lies in the archive of another one, whose
/// integrity is that of all that is in it: the innermost one it lies below that is not carried as well.
/// npm lists what it finds in an archive below the package of that archive, and takes it from nowhere
/// else.
fn is_carried(path: &str, package: &LockedPackage, listed: &Listed) -> bool {
    let is_part = |package: &LockedPackage| {
        package.in_bundle && package.integrity.is_none() && package.resolved.is_none()
    };
    if !is_part(package) {
        return false;
    }
    let mut inner = path;
    while let Some((outer, _)) = inner.rsplit_once("/node_modules/") {
        match listed.get(outer) {
            Some(package) if is_part(package) => inner = outer,
            Some(package) => return package.integrity.is_some() && !package.link && !package.dev,
            None => return false,
        }
    }
    false
}

/// Whether a package may lie there: `node_modules/a`, `node_modules/a/node_modules/@b/c`.
fn is_place(path: &str) -> bool {
    path.strip_prefix("node_modules/")
        .is_some_and(|names| names.split("/node_modules/").all(is_package_name))
}

fn is_version(version: &str) -> bool {
    version.len() <= MAX_VERSION_CHARS
        && version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-".contains(&b))
        && !is_tarball(version)
}

/// One hash or several, with one space between.
fn is_integrity(integrity: &str) -> bool {
    integrity.split(' ').all(|hash| {
        HASHES.iter().any(|name| {
            hash.strip_prefix(name).is_some_and(|digest| {
                !digest.is_empty()
                    && digest.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
            })
        })
    })
}

/// A user's lock file as npm gets it. Refuses one that would have npm fetch what is not in the
/// registry; what npm is not told of may come from anywhere. What is fetched is decided by name,
/// version and integrity.
pub(super) fn received(text: &str) -> Result<String, DependencyError> {
    packages(text)?;
    let mut lock: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    let Some(Value::Object(listed)) = lock.remove("packages") else {
        return Err(refused("the lock file has no packages"));
    };
    let mut kept = Map::new();
    for (path, package) in listed {
        let Value::Object(package) = package else {
            return Err(refused(format!("the lock file has no package at {path:?}")));
        };
        // npm is told of no development dependencies. One that is needed all the same is resolved.
        if package.get("dev") == Some(&Value::Bool(true)) {
            continue;
        }
        let fields = package.into_iter().filter(|(field, value)| {
            KEPT.contains(&field.as_str()) && (field != BUNDLED || are_names(value))
        });
        let package: Map<String, Value> = fields.collect();
        check_specs(&path, &package)?;
        kept.insert(path, Value::Object(package));
    }
    Ok(json!({ "lockfileVersion": 3, "requires": true, "packages": kept }).to_string())
}

fn are_names(value: &Value) -> bool {
    let is_name = |name: &Value| name.as_str().is_some_and(is_package_name);
    value.as_array().is_some_and(|names| names.iter().all(is_name))
}

fn check_specs(path: &str, package: &Map<String, Value>) -> Result<(), DependencyError> {
    let owner = match path.rsplit_once("node_modules/") {
        Some((_, name)) => shortened(name),
        None => "the project".to_owned(),
    };
    for kind in SPECS {
        let specs = match package.get(kind) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(specs)) => specs,
            // So say some that were published long ago.
            Some(Value::Array(none)) if none.is_empty() => continue,
            Some(_) => {
                return Err(refused(format!("{kind} of {owner} in the lock file is no object")));
            }
        };
        for (name, spec) in specs {
            if !is_package_name(name) || !spec.as_str().is_some_and(is_of_registry) {
                let spec = spec.as_str().map_or_else(|| spec.to_string(), str::to_owned);
                return Err(refused(format!(
                    "the lock file says that {owner} needs {}@{}: only packages of the registry are \
                     installed, by version, range or tag. Do without it and make the lock file again, \
                     or deploy without a lock file",
                    shortened(name),
                    shortened(&spec)
                )));
            }
        }
    }
    Ok(())
}

/// Whether npm would ask its registry for this: a version, a range or a tag, of the package itself or
/// of another one (`npm:name@range`). More is allowed in ranges than users may write: these were
/// written by whoever published the package.
fn is_of_registry(spec: &str) -> bool {
    let is_range = |range: &str| {
        !range.contains([':', '/', '\\']) && !range.starts_with('.') && !is_tarball(range)
    };
    let spec = spec.trim();
    match aliased(spec) {
        Some((name, range)) => is_package_name(name) && is_range(range.trim()),
        None => is_range(spec),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_TOLD_CHARS).collect()
}

/// A lock file of npm's own without the addresses in it: packages are asked for by name.
pub(super) fn without_addresses(text: &str) -> Option<String> {
    let mut lock: Value = serde_json::from_str(text).ok()?;
    let packages = lock.get_mut("packages")?.as_object_mut()?;
    for package in packages.values_mut().filter_map(Value::as_object_mut) {
        package.remove("resolved");
    }
    Some(lock.to_string())
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
            (r#"{"version":"1.0.0-b.1+c","integrity":"sha1-a+/= sha512-x"}"#, true),
            (r#"{"name":"@s/b","version":"1.0.0","integrity":"sha512-x"}"#, true),
            (
                r#"{"version":"1.0.0","integrity":"sha512-x","resolved":"https://r/a/-/a-1.0.0.tgz"}"#,
                true,
            ),
            (r#"{"version":"1.0.0"}"#, false),
            (
                r#"{"version":"1.0.0","integrity":"sha512-x","resolved":"git+ssh://git@h/a.git#1"}"#,
                false,
            ),
            (r#"{"version":"1.0.0","integrity":"sha512-x","resolved":"file:../../etc"}"#, false),
            (r#"{"resolved":"../b","link":true}"#, false),
            // npm asks for `name@version`, whatever that is then.
            (r#"{"version":"github:u/r#0123","integrity":"sha512-x"}"#, false),
            (r#"{"version":"http://10.0.0.1/x.tgz","integrity":"sha512-x"}"#, false),
            (r#"{"version":"1.tgz","integrity":"sha512-x"}"#, false),
            (r#"{"name":"b@git+file:///b","version":"1.0.0","integrity":"sha512-x"}"#, false),
            (r#"{"name":"../b","version":"1.0.0","integrity":"sha512-x"}"#, false),
            // The line of another package in that of this one.
            (r#"{"version":"1.0.0","integrity":"sha512-x node_modules/a\nb@1 sha512-y"}"#, false),
            (r#"{"version":"1.0.0\nb@1","integrity":"sha512-x"}"#, false),
            (r#"{"version":"1.0.0","integrity":"x"}"#, false),
        ] {
            assert_eq!(packages(&lock(package)).is_ok(), ok, "{package}");
        }
        assert!(packages(r#"{"lockfileVersion":1,"dependencies":{}}"#).is_err());
        assert!(packages("no json").is_err());
        for (path, ok) in [
            ("node_modules/@s/a/node_modules/b", true),
            ("node_modules/../../a", false),
            ("node_modules/a/../b", false),
            ("packages/a", false),
            ("a/node_modules/b", false),
            ("node_modules/a b", false),
        ] {
            let package = json!({ "version": "1.0.0", "integrity": "sha512-x" });
            let lock = json!({ "lockfileVersion": 3, "packages": { path: package } });
            assert_eq!(packages(&lock.to_string()).is_ok(), ok, "{path}");
        }
    }

    #[test]
    fn what_lies_in_the_archive_of_a_package_needs_no_integrity_of_its_own() {
        let a = json!({ "version": "1.0.0", "integrity": "sha512-x", "bundleDependencies": ["b"] });
        let b = json!({ "version": "1.0.0", "inBundle": true });
        let b_with = |fields: Value| {
            let mut b = b.clone();
            b.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            b
        };
        let lock = |listed: Value| json!({ "lockfileVersion": 3, "packages": listed }).to_string();
        let (below_a, below_b) = ("node_modules/a/node_modules/@s/b", "/node_modules/c");
        let deep = format!("{below_a}{below_b}");
        let text = lock(json!({
            "": { "dependencies": { "a": "1" } },
            "node_modules/a": a,
            below_a: b,
            &deep: b,
        }));
        let found = packages(&text).unwrap();
        let integrities: Vec<_> = found.iter().map(|found| &*found.integrity).collect();
        assert_eq!(integrities, ["sha512-x", "", ""]);
        let received: Value = serde_json::from_str(&received(&text).unwrap()).unwrap();
        assert_eq!(received["packages"]["node_modules/a"], a);
        assert_eq!(received["packages"][below_a], json!({ "version": "1.0.0" }));

        for listed in [
            // Nobody carries it.
            json!({ "node_modules/b": b }),
            json!({ "node_modules/a": a, "node_modules/b": b }),
            json!({ below_a: b }),
            json!({ "node_modules/a": a, &deep: b }),
            // Who carries it is covered by nothing, or not installed.
            json!({ "node_modules/a": b, below_a: b }),
            json!({ "node_modules/a": { "version": "1.0.0" }, below_a: b }),
            json!({ "node_modules/a": { "link": true, "integrity": "sha512-x" }, below_a: b }),
            json!({
                "node_modules/a": { "version": "1.0.0", "integrity": "sha512-x", "dev": true },
                below_a: b,
            }),
            json!({ "node_modules/a": { "version": "1.0.0", "integrity": "x" }, below_a: b }),
            // It says that it comes from elsewhere, or is no package.
            json!({ "node_modules/a": a, below_a: b_with(json!({ "inBundle": false })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "link": true })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "resolved": "file:../b" })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "resolved": "https://h/b.tgz" })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "integrity": "" })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "version": "u/r" })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "name": "../b" })) }),
            json!({ "node_modules/a": a, below_a: b_with(json!({ "dependencies": { "x": "u/r" } })) }),
        ] {
            assert!(super::received(&lock(listed.clone())).is_err(), "{listed}");
        }
    }

    #[test]
    fn what_lies_beside_a_project_is_refused_with_what_to_do() {
        let x = json!({ "version": "1.0.0", "integrity": "sha512-x" });
        for (path, package) in [
            ("packages/b", json!({ "name": "b", "version": "1.0.0" })),
            ("packages/b/node_modules/c", x.clone()),
            ("../b", json!({ "version": "1.0.0" })),
            ("node_modules/b", json!({ "resolved": "packages/b", "link": true })),
            (
                "node_modules/b",
                json!({ "version": "file:../b.tgz", "resolved": "file:../b.tgz", "integrity": "sha512-x" }),
            ),
        ] {
            let lock = json!({
                "lockfileVersion": 3,
                "packages": { "": { "workspaces": ["packages/*"] }, "node_modules/a": x, path: package },
            });
            let Err(DependencyError::Rejected(told)) = received(&lock.to_string()) else {
                panic!("{lock}")
            };
            assert!(
                told.starts_with(&format!("the lock file holds {path:?}: workspaces")),
                "{told}"
            );
        }
    }

    #[test]
    fn what_a_package_needs_is_of_the_registry_too() {
        let needs = |path: &str, kind: &str, spec: &str| {
            let mut package = json!({ "version": "1.0.0", "integrity": "sha512-x" });
            package[kind] = json!({ "x": spec });
            received(&json!({ "lockfileVersion": 3, "packages": { path: package } }).to_string())
        };
        for spec in [
            "",
            "*",
            "latest",
            "^1.0.0 || >=2, <3",
            " 1 - 2 ",
            "npm:b",
            "npm:b@^1",
            "npm:@s/b@1.0.0",
        ] {
            assert!(needs("node_modules/a", "dependencies", spec).is_ok(), "{spec}");
        }
        for spec in [
            "github:attacker/repo#0123456789abcdef0123456789abcdef01234567",
            "attacker/repo",
            "git+file:///srv/repo",
            "git@example.org:a/b.git",
            "http://10.0.0.1/x.tgz",
            "https://example.org/x",
            "file:../x",
            "link:../x",
            "workspace:*",
            "..",
            "x.tgz",
            "C:\\x",
            "npm:b@github:attacker/repo",
            "npm:../b@1",
            "npm:@s@1",
            "npm:",
            "NPM:b@http://10.0.0.1/x",
        ] {
            for kind in SPECS {
                for path in ["", "node_modules/a", "node_modules/@s/a/node_modules/b"] {
                    let Err(DependencyError::Rejected(told)) = needs(path, kind, spec) else {
                        panic!("{path} {kind} {spec}")
                    };
                    assert!(told.contains(&format!("x@{spec}")), "{told}");
                }
            }
        }
        let Err(DependencyError::Rejected(told)) = needs("node_modules/a", SPECS[0], "u/r") else {
            panic!("it is refused")
        };
        assert!(told.starts_with("the lock file says that a needs x@u/r: only"), "{told}");
        for specs in [json!({ "x": 1 }), json!({ "../x": "1" }), json!("x"), json!(["x"])] {
            let root =
                json!({ "lockfileVersion": 3, "packages": { "": { "dependencies": specs } } });
            assert!(received(&root.to_string()).is_err(), "{root}");
        }
    }

    #[test]
    fn what_only_development_needs_may_come_from_anywhere_and_npm_never_sees_it() {
        let git = "git+ssh://git@github.com/u/r.git#0123";
        let text = json!({
            "lockfileVersion": 3,
            "packages": {
                "": {
                    "dependencies": { "a": "1" },
                    "devDependencies": { "x": "github:u/r" },
                    "acceptDependencies": { "x": "github:u/r" },
                },
                "node_modules/a": {
                    "version": "1.0.0",
                    "integrity": "sha512-x",
                    "devDependencies": { "y": "u/r" },
                },
                "node_modules/x": {
                    "dev": true,
                    "version": "1.0.0",
                    "resolved": git,
                    "dependencies": { "z": "u/r" },
                },
            },
        });
        let received = received(&text.to_string()).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&received).unwrap()["packages"],
            json!({
                "": { "dependencies": { "a": "1" } },
                "node_modules/a": { "version": "1.0.0", "integrity": "sha512-x" },
            })
        );
        for dev in [json!(false), json!(null), json!("true"), json!(1)] {
            let mut text = text.clone();
            text["packages"]["node_modules/x"]["dev"] = dev;
            assert!(super::received(&text.to_string()).is_err(), "{text}");
        }
    }

    #[test]
    fn all_of_which_npm_is_told_is_checked() {
        for field in KEPT.iter().filter(|field| field.ends_with("ependencies")) {
            assert!(SPECS.contains(field) || *field == BUNDLED, "{field}");
        }
    }

    #[test]
    fn npm_gets_nothing_of_a_lock_file_but_what_was_read() {
        let text = json!({
            "lockfileVersion": 2,
            "name": "x",
            "packages": {
                "": { "dependencies": { "a": "1" }, "workspaces": ["b"], "scripts": { "a": "b" } },
                "node_modules/a": {
                    "version": "1.0.0",
                    "integrity": "sha512-x",
                    "resolved": "https://r/a-1.0.0.tgz",
                    "bin": { "a": "../../a" },
                    "os": ["linux"],
                    "bundleDependencies": true,
                },
                "node_modules/b": { "dev": true, "link": true, "resolved": "../b" },
            },
            "dependencies": { "a": { "version": "git+ssh://git@h/a.git#1" } },
        });
        let received: Value = serde_json::from_str(&received(&text.to_string()).unwrap()).unwrap();
        assert_eq!(
            received,
            json!({
                "lockfileVersion": 3,
                "requires": true,
                "packages": {
                    "": { "dependencies": { "a": "1" } },
                    "node_modules/a":
                        { "version": "1.0.0", "integrity": "sha512-x", "os": ["linux"] },
                },
            })
        );
        assert!(super::received(r#"{"lockfileVersion":3}"#).is_err());
    }

    #[test]
    fn addresses_are_dropped() {
        let text = lock(r#"{"version":"1","integrity":"x","resolved":"https://r/a-1.tgz"}"#);
        assert!(!without_addresses(&text).unwrap().contains("https://"));
    }
}
