//! What a deploy wants installed, checked before it is handed on: names are npm names, versions
//! are ranges, tags or aliases of the registry. Nothing else (`file:`, `git:`, URLs, options) gets through.

use std::collections::BTreeMap;

use cloudserve_protocol::build::{
    check_overrides, is_of_registry, is_package_name, name_and_range,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::json;

const MAX_DEPENDENCIES: usize = 500;

/// Values of a `package.json`, as [`json::read`] counts them.
const MAX_MANIFEST_VALUES: usize = 200_000;

/// Values of a lock file that may have so many bytes: of npm's there is one for every three.
pub(crate) fn max_lock_values(max_bytes: u64) -> usize {
    usize::try_from(max_bytes / 2).unwrap_or(usize::MAX).max(LEAST_LOCK_VALUES)
}

const LEAST_LOCK_VALUES: usize = 2_000_000;

/// Package name to version range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Dependencies(pub(crate) BTreeMap<String, String>);

impl TryFrom<Value> for Dependencies {
    type Error = String;

    /// Reads `{"axios": "^1"}` or `["axios@^1"]`.
    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(map) => Self::from_map(map),
            Value::Array(list) => Self::check(list.into_iter().map(from_text)),
            _ => Err("must be an object {\"name\": \"range\"} or a list [\"name@range\"]".into()),
        }
    }
}

fn from_text(value: Value) -> Result<(String, String), String> {
    let Value::String(text) = value else {
        return Err("must be an object {\"name\": \"range\"} or a list [\"name@range\"]".into());
    };
    let (name, range) = name_and_range(&text).unwrap_or((text.as_str(), ""));
    Ok((name.to_owned(), range.to_owned()))
}

impl Dependencies {
    fn from_map(map: Map<String, Value>) -> Result<Self, String> {
        Self::check(map.into_iter().map(|(name, range)| match range {
            Value::String(range) => Ok((name, range)),
            _ => Err(format!("the version of {name:?} must be a string")),
        }))
    }

    fn check(
        entries: impl ExactSizeIterator<Item = Result<(String, String), String>>,
    ) -> Result<Self, String> {
        if entries.len() > MAX_DEPENDENCIES {
            return Err(format!("must name at most {MAX_DEPENDENCIES} packages"));
        }
        let mut checked = BTreeMap::new();
        for entry in entries {
            let (name, range) = entry?;
            if !is_package_name(&name) {
                return Err(format!("{:?} is not the name of an npm package", shortened(&name)));
            }
            let range = if range.trim().is_empty() { "*" } else { range.trim() };
            if !is_of_registry(range) {
                return Err(format!(
                    "{:?} is not a version, range, tag or alias (npm:name@range) of {name:?}; \
                     packages come from the npm registry only",
                    shortened(range)
                ));
            }
            checked.insert(name, range.to_owned());
        }
        Ok(Self(checked))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// What a `package.json` says that concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// With its peers, which npm installs as well.
    pub(crate) dependencies: Dependencies,
    /// What is left out where it cannot be installed; none of the above.
    pub(crate) optional: Dependencies,
    /// What packages are replaced with wherever they are needed, a JSON object.
    pub(crate) overrides: Option<String>,
    /// Where it says the program begins, best first.
    pub(crate) entries: Vec<String>,
}

impl Manifest {
    /// Reads a `package.json`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8")?;
        let value = json::read(text, MAX_MANIFEST_VALUES);
        Self::from_value(value.map_err(|error| error.to_string())?)
    }

    /// Reads a `package.json` that is parsed already, or still a text.
    pub(crate) fn from_value(value: Value) -> Result<Self, String> {
        let mut map = match value {
            Value::Object(map) => map,
            Value::String(text) => return Self::parse_object(&text),
            _ => return Err("must be an object or the text of one".into()),
        };
        let mut object = |field: &str| match map.remove(field) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object),
            Some(_) => Err(format!("{field} must be an object")),
        };
        let (mut needed, optional) = (object("dependencies")?, object("optionalDependencies")?);
        let (mut peers, meta) = (object("peerDependencies")?, object("peerDependenciesMeta")?);
        let (development, overrides) = (object("devDependencies")?, object("overrides")?);
        // Of what is named twice, npm heeds the latter: a peer, a dependency, an optional one. A peer that
        // may be missing it does not install.
        needed.retain(|name, _| !optional.contains_key(name));
        peers.retain(|name, _| {
            let may_be_missing = meta.get(name).is_some_and(|of| of["optional"] == true);
            !may_be_missing && !needed.contains_key(name) && !optional.contains_key(name)
        });
        let read =
            |kind: &str, of| Dependencies::from_map(of).map_err(|error| format!("{kind}: {error}"));
        let mut dependencies = Dependencies::from_map(needed)?;
        dependencies.0.extend(read("peerDependencies", peers)?.0);
        let optional = read("optionalDependencies", optional)?;
        let overrides = read_overrides(overrides, |name| {
            let ranges = [&optional.0, &dependencies.0].into_iter().find_map(|of| of.get(name));
            ranges.map(String::as_str).or_else(|| development.get(name)?.as_str())
        })?;
        let entries = ["main", "module"].into_iter().filter_map(|field| match map.remove(field) {
            Some(Value::String(path)) => Some(path),
            _ => None,
        });
        Ok(Self { entries: entries.collect(), dependencies, optional, overrides })
    }

    fn parse_object(text: &str) -> Result<Self, String> {
        match json::read(text, MAX_MANIFEST_VALUES) {
            Ok(value @ Value::Object(_)) => Self::from_value(value),
            Ok(_) => Err("must be an object".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Overrides as npm gets them: `$NAME` is what the project itself says of that package.
fn read_overrides<'a>(
    mut overrides: Map<String, Value>,
    range_of: impl Fn(&str) -> Option<&'a str> + Copy,
) -> Result<Option<String>, String> {
    resolve_references(&mut overrides, range_of)?;
    check_overrides(&overrides).map_err(|error| format!("overrides: {error}"))?;
    Ok((!overrides.is_empty()).then(|| Value::Object(overrides).to_string()))
}

fn resolve_references<'a>(
    overrides: &mut Map<String, Value>,
    range_of: impl Fn(&str) -> Option<&'a str> + Copy,
) -> Result<(), String> {
    for value in overrides.values_mut() {
        match value {
            Value::Object(inner) => resolve_references(inner, range_of)?,
            Value::String(spec) => {
                if let Some(name) = spec.strip_prefix('$') {
                    let told =
                        || format!("overrides: {:?} is not among dependencies", shortened(name));
                    *spec = range_of(name).ok_or_else(told)?.to_owned();
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A `package-lock.json`, kept as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageLock(pub(crate) String);

impl PackageLock {
    /// Reads a lock file that is parsed already, or still a text: of at most so many bytes.
    pub(crate) fn from_value(value: Value, max_bytes: u64) -> Result<Self, String> {
        let text = match value {
            Value::Object(_) => value.to_string(),
            Value::String(text) => return Self::parse(text, max_bytes),
            _ => return Err("must be an object or the text of one".into()),
        };
        check_length(&text, max_bytes)?;
        Ok(Self(text))
    }

    /// Reads the text of a lock file of at most so many bytes.
    pub(crate) fn parse(text: String, max_bytes: u64) -> Result<Self, String> {
        check_length(&text, max_bytes)?;
        match json::read(&text, max_lock_values(max_bytes)) {
            Ok(Value::Object(_)) => Ok(Self(text)),
            Ok(_) => Err("must be an object".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn check_length(text: &str, max_bytes: u64) -> Result<(), String> {
    if text.len() as u64 > max_bytes {
        return Err(format!("must have at most {max_bytes} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_and_lists_are_read() {
        let expected = Dependencies(BTreeMap::from([
            ("@aws-sdk/client-s3".to_owned(), "^3.1".to_owned()),
            ("axios".to_owned(), ">=1 <2 || ^3".to_owned()),
            ("lodash".to_owned(), "*".to_owned()),
            ("old".to_owned(), "npm:@scope/new@^1".to_owned()),
        ]));
        let map = json!({
            "axios": ">=1 <2 || ^3",
            "lodash": "",
            "@aws-sdk/client-s3": "^3.1",
            "old": " npm:@scope/new@^1",
        });
        assert_eq!(Dependencies::try_from(map).unwrap(), expected);
        let list = json!([
            "axios@>=1 <2 || ^3",
            "lodash",
            "@aws-sdk/client-s3@^3.1",
            "old@npm:@scope/new@^1",
        ]);
        assert_eq!(Dependencies::try_from(list).unwrap(), expected);
    }

    #[test]
    fn only_names_and_ranges_of_the_registry_get_through() {
        for name in
            ["", "-g", "../evil", "a b", "@x", "@x/", "@/y", "a/b", ".bin", "node_modules", "a.tgz"]
        {
            assert!(Dependencies::try_from(json!({ name: "1" })).is_err(), "{name}");
        }
        for range in [
            "file:///etc",
            "file:..",
            "git+ssh://git@example.org/x.git",
            "github:a/b",
            "a/b",
            "--registry=http://example.org",
            "-g",
            "npm:other@git+file:///x",
            "npm:../other@1",
            "http://x/y.tgz",
            "1\n2",
            "link:x",
            "x.tgz",
            "..",
        ] {
            assert!(Dependencies::try_from(json!({ "lodash": range })).is_err(), "{range}");
        }
        for other in [json!(7), json!("lodash"), json!([7]), json!({ "lodash": 4 })] {
            assert!(Dependencies::try_from(other.clone()).is_err(), "{other}");
        }
    }

    #[test]
    fn lock_files_are_objects_or_their_text_and_bounded() {
        let lock = json!({ "lockfileVersion": 3 });
        let text = lock.to_string();
        let bytes = text.len() as u64;
        for value in [lock.clone(), json!(text)] {
            assert_eq!(PackageLock::from_value(value.clone(), bytes).unwrap().0, text);
            let wrong = PackageLock::from_value(value, bytes - 1).unwrap_err();
            assert!(wrong.contains("at most"), "{wrong}");
        }
        for bad in [json!("{"), json!("[]"), json!(1), json!([])] {
            assert!(PackageLock::from_value(bad.clone(), bytes).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lock_file_may_have_the_values_that_its_bytes_are() {
        let package = concat!(
            r#""node_modules/abc":{"version":"1.2.3","resolved":"https://r.example/abc/-/abc-1.2.3.tgz","#,
            r#""integrity":"sha512-0123456789012345678","license":"MIT","dependencies":{"abcd":"^1"}},"#,
        );
        let text = format!("{{\"packages\":{{{}\"\":{{}}}}}}", package.repeat(40_000));
        let bytes = text.len() as u64;
        assert!(json::read(&text, LEAST_LOCK_VALUES).is_err());
        assert!(PackageLock::parse(text, bytes).is_ok());
        let nested = format!("{{\"a\":[{}0]}}", "[],".repeat(200_000));
        let wrong = PackageLock::parse(nested, bytes).unwrap_err();
        assert!(wrong.contains("more objects"), "{wrong}");
    }

    #[test]
    fn manifests_are_objects_or_their_text() {
        let object = json!({ "main": "lib/a.js", "dependencies": { "lodash": "^4" }, "x": 1 });
        let parsed = Manifest::from_value(object.clone()).unwrap();
        assert_eq!(parsed.entries, ["lib/a.js"]);
        assert_eq!(parsed.dependencies.0["lodash"], "^4");
        assert_eq!(Manifest::from_value(json!(object.to_string())).unwrap(), parsed);
        for bad in [
            json!("{"),
            json!("[]"),
            json!(1),
            json!({ "dependencies": [] }),
            json!({ "optionalDependencies": "a" }),
            json!({ "peerDependencies": { "a": "file:.." } }),
            json!({ "overrides": [] }),
            json!({ "overrides": { "a": "github:u/r" } }),
            json!({ "overrides": { "a": { "b": "$c" } } }),
        ] {
            assert!(Manifest::from_value(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_optional_dependencies_and_overrides_are_taken_as_npm_does() {
        let manifest = Manifest::from_value(json!({
            "dependencies": { "a": "^1", "b": "^1" },
            "optionalDependencies": { "b": "^2", "fsevents": "^2" },
            "peerDependencies": { "a": "*", "p": "^3", "q": "workspace:*" },
            "peerDependenciesMeta": { "q": { "optional": true }, "p": { "optional": false } },
            "devDependencies": { "d": "^4", "e": "file:../e" },
            "overrides": { "a": "$a", "x": { ".": "1", "b": "$b", "d": "$d" }, "y@^1": "npm:z@2" },
            "resolutions": { "a": "github:u/r" },
        }))
        .unwrap();
        let of = |entries: &[(&str, &str)]| {
            let owned = entries.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            Dependencies(owned.collect())
        };
        assert_eq!(manifest.dependencies, of(&[("a", "^1"), ("p", "^3")]));
        assert_eq!(manifest.optional, of(&[("b", "^2"), ("fsevents", "^2")]));
        let overrides: Value = serde_json::from_str(&manifest.overrides.unwrap()).unwrap();
        let expected =
            json!({ "a": "^1", "x": { ".": "1", "b": "^2", "d": "^4" }, "y@^1": "npm:z@2" });
        assert_eq!(overrides, expected);
        assert_eq!(Manifest::from_value(json!({ "overrides": {} })).unwrap().overrides, None);
    }
}
