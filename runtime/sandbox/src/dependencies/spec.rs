//! What a user may ask npm for: packages of the registry, by version range, tag or alias. No git, no
//! files, no addresses: those would let a deploy read this host or its network.

use cloudserve_protocol::build::{
    DependencyError, DependencySpec, TREE_FORMAT_VERSION, check_overrides, is_of_registry,
    is_package_name,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Direct dependencies of one function.
const MAX_DEPENDENCIES: usize = 500;

/// A specification every part of which was checked.
#[derive(Debug, Clone)]
pub(super) struct CheckedSpec {
    spec: DependencySpec,
    overrides: Map<String, Value>,
}

fn refused(message: String) -> DependencyError {
    DependencyError::Rejected(message)
}

impl CheckedSpec {
    pub(super) fn new(spec: DependencySpec) -> Result<Self, DependencyError> {
        let n_dependencies = spec.dependencies.len() + spec.optional_dependencies.len();
        if n_dependencies > MAX_DEPENDENCIES {
            return Err(refused(format!(
                "a function may have at most {MAX_DEPENDENCIES} direct dependencies, not \
                 {n_dependencies}"
            )));
        }
        for (name, range) in spec.dependencies.iter().chain(&spec.optional_dependencies) {
            if !is_package_name(name) {
                return Err(refused(format!("{name:?} is not a package name")));
            }
            if !is_of_registry(range) {
                return Err(refused(format!(
                    "{name}@{range}: only version ranges, tags and aliases of the registry are \
                     supported"
                )));
            }
        }
        let overrides: Map<String, Value> = match &spec.overrides {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| refused(format!("overrides cannot be read: {error}")))?,
            None => Map::new(),
        };
        check_overrides(&overrides).map_err(|told| refused(format!("overrides: {told}")))?;
        Ok(Self { spec, overrides })
    }

    pub(super) fn refresh(&self) -> bool {
        self.spec.refresh
    }

    /// Why no tree may be added, if none may be.
    pub(super) fn refusal_to_add(&self) -> Option<DependencyError> {
        let max_bytes = self.spec.spent_bytes?;
        Some(refused(format!(
            "the account's deploys have added {max_bytes} bytes of packages that nobody had on this day \
             (UTC), and may add no more (dependency_bytes_per_user_per_day); deploy tomorrow, or with \
             dependencies that were built before"
        )))
    }

    pub(super) fn package_lock(&self) -> Option<&str> {
        self.spec.package_lock.as_deref()
    }

    /// The `package.json` that npm gets.
    pub(super) fn package_json(&self) -> String {
        let mut package = json!({
            "name": "function",
            "version": "0.0.0",
            "private": true,
            "dependencies": self.spec.dependencies,
        });
        // What is not there does not change what a specification is named.
        if !self.spec.optional_dependencies.is_empty() {
            package["optionalDependencies"] = json!(self.spec.optional_dependencies);
        }
        if !self.overrides.is_empty() {
            package["overrides"] = json!(self.overrides);
        }
        package.to_string()
    }

    /// Names this specification: equal ones share a resolution.
    pub(super) fn hash(&self, platform: &str) -> String {
        let mut hasher = Sha256::new();
        hasher.update(format!("{TREE_FORMAT_VERSION}\n{platform}\n"));
        hasher.update(self.package_json());
        hasher.update("\n");
        hasher.update(self.spec.package_lock.as_deref().unwrap_or_default());
        hex::encode(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_the_registry_is_asked() {
        for (name, range, ok) in [
            ("lodash", "^4", true),
            ("@scope/pkg", ">=1.2.3 <2 || 3.x", true),
            ("JSONStream", "latest", true),
            ("a", "", true),
            ("a", "1.0.0-beta.1+build", true),
            ("../a", "1", false),
            ("a/b", "1", false),
            ("@a", "1", false),
            ("-g", "1", false),
            ("", "1", false),
            ("a b", "1", false),
            ("node_modules", "1", false),
            ("a.tgz", "1", false),
            ("a", "file:/etc", false),
            ("a", "../../etc", false),
            ("a", "git+ssh://x", false),
            ("a", "user/repo", false),
            ("a", "http://127.0.0.1/x.tgz", false),
            ("a", "npm:b@1", true),
            ("a", "npm:@s/b", true),
            ("a", "npm:b@file:/etc", false),
            ("a", "npm:../b@1", false),
            ("a", "workspace:*", false),
            ("a", "--registry", false),
            ("a", "b.tgz", false),
            ("a", "..", false),
        ] {
            let dependencies = || [(name.to_owned(), range.to_owned())].into();
            for spec in [
                DependencySpec { dependencies: dependencies(), ..DependencySpec::default() },
                DependencySpec {
                    optional_dependencies: dependencies(),
                    ..DependencySpec::default()
                },
                DependencySpec {
                    overrides: Some(json!({ name: range }).to_string()),
                    ..DependencySpec::default()
                },
            ] {
                assert_eq!(CheckedSpec::new(spec.clone()).is_ok(), ok, "{spec:?}");
            }
        }
    }

    #[test]
    fn what_changes_the_tree_changes_the_name_of_a_specification() {
        let hash = |spec: &DependencySpec| CheckedSpec::new(spec.clone()).unwrap().hash("p");
        let dependencies: BTreeMap<String, String> = [("a".into(), "^1".into())].into();
        let spec =
            DependencySpec { dependencies: dependencies.clone(), ..DependencySpec::default() };
        let optional = DependencySpec { optional_dependencies: dependencies, ..spec.clone() };
        let overrides = DependencySpec { overrides: Some(r#"{"b":"1"}"#.into()), ..spec.clone() };
        let none = DependencySpec { overrides: Some("{}".into()), ..spec.clone() };
        assert_eq!(hash(&spec), hash(&none));
        assert_ne!(hash(&spec), hash(&optional));
        assert_ne!(hash(&spec), hash(&overrides));
        for text in ["", "[]", r#"{"a":1}"#] {
            let wrong = DependencySpec { overrides: Some(text.into()), ..spec.clone() };
            assert!(CheckedSpec::new(wrong).is_err(), "{text}");
        }
    }
}
