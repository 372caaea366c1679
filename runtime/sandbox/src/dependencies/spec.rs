//! What a user may ask npm for: packages of the registry, by version range, tag or alias. No git, no
//! files, no addresses: those would let a deploy read this host or its network.

use cloudserve_protocol::build::{
    DependencyError, DependencySpec, TREE_FORMAT_VERSION, is_of_registry, is_package_name,
};
use sha2::{Digest, Sha256};

/// Direct dependencies of one function.
const MAX_DEPENDENCIES: usize = 500;

/// A specification every part of which was checked.
#[derive(Debug, Clone)]
pub(super) struct CheckedSpec {
    spec: DependencySpec,
}

fn refused(message: String) -> DependencyError {
    DependencyError::Rejected(message)
}

impl CheckedSpec {
    pub(super) fn new(spec: DependencySpec) -> Result<Self, DependencyError> {
        if spec.dependencies.len() > MAX_DEPENDENCIES {
            return Err(refused(format!(
                "a function may have at most {MAX_DEPENDENCIES} direct dependencies, not {}",
                spec.dependencies.len()
            )));
        }
        for (name, range) in &spec.dependencies {
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
        Ok(Self { spec })
    }

    pub(super) fn refresh(&self) -> bool {
        self.spec.refresh
    }

    pub(super) fn package_lock(&self) -> Option<&str> {
        self.spec.package_lock.as_deref()
    }

    /// The `package.json` that npm gets.
    pub(super) fn package_json(&self) -> String {
        serde_json::json!({
            "name": "function",
            "version": "0.0.0",
            "private": true,
            "dependencies": self.spec.dependencies,
        })
        .to_string()
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
            let spec = DependencySpec {
                dependencies: [(name.to_owned(), range.to_owned())].into(),
                ..DependencySpec::default()
            };
            assert_eq!(CheckedSpec::new(spec).is_ok(), ok, "{name}@{range}");
        }
    }
}
