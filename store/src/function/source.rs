//! What a version is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceFile {
    /// Relative, `/`-separated, no `..`.
    pub path: String,
    /// SHA-256 (hex) of its bytes.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What was deployed. The files' bytes are objects under `<functionId>/src/<stored_version>/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The version under which the files are stored: a redeploy stores nothing again.
    pub stored_version: u32,
    /// The module that exports the handler.
    pub entry: String,
    /// Whether a deploy has named it: else it is looked for among new files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub entry_is_given: bool,
    /// All files, sorted by path.
    pub files: Vec<SourceFile>,
    /// Package name to version range.
    pub dependencies: BTreeMap<String, String>,
    /// Likewise, of packages that are left out where they cannot be installed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optional_dependencies: BTreeMap<String, String>,
    /// The `overrides` of a `package.json`, a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,
    /// Packages the user wants left out of the bundle.
    pub external: Vec<String>,
    /// A lock file to honour.
    pub package_lock: Option<String>,
    /// Resolve version ranges again in this deploy.
    #[serde(default)]
    pub refresh_dependencies: bool,
}

impl Source {
    /// The path of its file, if it is one.
    #[must_use]
    pub fn only_file(&self) -> Option<&str> {
        only(&self.files).map(|file| file.path.as_str())
    }
}

/// What a list shows of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSource {
    /// The version under which its files are stored.
    pub stored_version: u32,
    /// The path of its file, if it is one.
    pub only_file: Option<String>,
    /// Package name to version range.
    pub dependencies: BTreeMap<String, String>,
    /// Packages the user wants left out of the bundle.
    pub external: Vec<String>,
}

impl From<Source> for ListedSource {
    fn from(source: Source) -> Self {
        let only_file = source.only_file().map(str::to_owned);
        Self {
            stored_version: source.stored_version,
            only_file,
            dependencies: source.dependencies,
            external: source.external,
        }
    }
}

/// The one there is, if it is the only one.
pub(crate) fn only<T>(of: impl IntoIterator<Item = T>) -> Option<T> {
    let mut of = of.into_iter();
    of.next().filter(|_| of.next().is_none())
}
