//! What a user may ask npm for: packages of the registry, by version range or tag. No git, no
//! files, no addresses: those would let a deploy read this host or its network.

use cloudserve_protocol::build::{DependencyError, DependencySpec, TREE_FORMAT_VERSION};
use sha2::{Digest, Sha256};

/// Direct dependencies of one function.
const MAX_DEPENDENCIES: usize = 500;

const MAX_NAME_CHARS: usize = 214;
const MAX_RANGE_CHARS: usize = 256;

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
            if !is_range_or_tag(range) {
                return Err(refused(format!(
                    "{name}@{range}: only version ranges and tags of the registry are supported"
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

/// The registry's rules for names: URL-safe, lower case (old packages have upper case), no
/// leading dot or underscore, at most one scope.
pub(super) fn is_package_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '_', '-'])
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
    };
    let well_formed = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(a, b)| is_part(a) && is_part(b)),
        None => is_part(name),
    };
    well_formed && name.len() <= MAX_NAME_CHARS && name != "node_modules" && !is_tarball(name)
}

/// npm takes what ends like this for a file, whatever stands before it.
pub(super) fn is_tarball(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [".tgz", ".tar.gz", ".tar"].iter().any(|ending| text.ends_with(ending))
}

/// Ranges and tags are made of these characters; paths, addresses and aliases need `:`, `/` or
/// `\`, and options would begin with `-`.
fn is_range_or_tag(range: &str) -> bool {
    range.len() <= MAX_RANGE_CHARS
        && !range.starts_with('-')
        && !range.starts_with('.')
        && !is_tarball(range)
        && range.bytes().all(|b| b.is_ascii_alphanumeric() || b" .^~<>=|*-+_".contains(&b))
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
            ("a", "npm:b@1", false),
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
