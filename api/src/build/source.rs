//! The files of a deploy: what may be among them, their hash, and where they are kept.
//!
//! One file is stored as it is, several as one `tar.gz`: a project costs one durable write, not one
//! per file. The hash is part of the object's name, so two deploys that compete for one version
//! number never write the same object with different content. Invariant: a value of
//! [`SourceFiles`] has passed the path rules and the bounds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore};
use cloudserve_protocol::ids::{FunctionId, SourceHash};
use cloudserve_store::function::{Source, SourceFile};
use sha2::{Digest, Sha256};

use super::archive;

const MAX_PATH_BYTES: usize = 400;
const MAX_NAME_BYTES: usize = 200;
const MAX_DEPTH: usize = 32;

/// Directories of a project that are left out of an archive and refused in a list of files.
pub(super) const NOT_SOURCE: [&str; 2] = ["node_modules", ".git"];

const PACKED_NAME: &str = "source.tar.gz";

const CODE_EXTENSIONS: [&str; 8] = ["ts", "tsx", "mts", "js", "mjs", "cjs", "jsx", "cts"];

/// Where a project that does not say so has its handler; the first that is there.
const ENTRY_STEMS: [&str; 9] = [
    "index",
    "handler",
    "main",
    "function",
    "app",
    "server",
    "src/index",
    "src/handler",
    "src/main",
];

/// Why files are not taken. The messages are fit for users.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{path:?} is not a path of a source file: {rule}")]
    BadPath { path: String, rule: &'static str },
    #[error("{0:?} is both a file and a directory")]
    FileAndDirectory(String),
    #[error("{0:?} is there twice")]
    Twice(String),
    #[error("there are no files")]
    Empty,
    #[error("there are more than {max} files")]
    TooMany { max: u32 },
    #[error("the source is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    #[error("{path:?} is a link or a device; only files and directories are taken")]
    NotAFile { path: String },
    #[error("the archive is not a readable .tar.gz: {0}")]
    Unreadable(#[from] io::Error),
}

/// Why stored files cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the source cannot be read")]
    Artifact(#[from] ArtifactError),
    #[error("the stored source is damaged")]
    Damaged(#[from] SourceError),
    #[error("the stored source does not have its hash")]
    OtherHash,
    #[error("the source cannot be unpacked")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Bounds on the files of a deploy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceBounds {
    pub(crate) bytes: u64,
    pub(crate) files: u32,
}

/// Path to content, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFiles(BTreeMap<String, Bytes>);

impl SourceFiles {
    /// Checks files that were sent one by one.
    pub(crate) fn check(
        files: BTreeMap<String, Bytes>,
        bounds: SourceBounds,
    ) -> Result<Self, SourceError> {
        if files.is_empty() {
            return Err(SourceError::Empty);
        }
        if files.len() > bounds.files as usize {
            return Err(SourceError::TooMany { max: bounds.files });
        }
        if files.values().map(|bytes| bytes.len() as u64).sum::<u64>() > bounds.bytes {
            return Err(SourceError::TooLarge { max_bytes: bounds.bytes });
        }
        for path in files.keys() {
            check_path(path)?;
            let directories = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(both) = directories.into_iter().find(|dir| files.contains_key(*dir)) {
                return Err(SourceError::FileAndDirectory(both.to_owned()));
            }
        }
        Ok(Self(files))
    }

    /// The files of a `.tar.gz`. Blocks. Links and devices are refused; `node_modules`, `.git` and
    /// a directory around everything are left out.
    pub(crate) fn unpack(archive: &[u8], bounds: SourceBounds) -> Result<Self, SourceError> {
        Self::check(archive::unwrapped(archive::read(archive, bounds)?), bounds)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(path, bytes)| (path.as_str(), bytes))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Bytes> {
        self.0.get(path)
    }

    /// A single file under another name, which another source had before.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self(self.0.values().map(|bytes| (name.to_owned(), bytes.clone())).collect())
    }

    /// What is remembered of the files.
    pub(crate) fn listing(&self) -> Vec<SourceFile> {
        self.iter()
            .map(|(path, bytes)| SourceFile {
                path: path.to_owned(),
                sha256: hex::encode(Sha256::digest(bytes)),
                bytes: bytes.len() as u64,
            })
            .collect()
    }

    /// Of one file, the hash of its bytes; of several, that of their listing.
    pub(crate) fn hash_of(listing: &[SourceFile], files: &Self) -> SourceHash {
        if let (1, Some(only)) = (files.0.len(), files.0.values().next()) {
            return SourceHash::of(only);
        }
        let mut digest = Sha256::new_with_prefix("cloudserve-source 1\n");
        for SourceFile { path, sha256, bytes } in listing {
            digest.update(format!("{sha256} {bytes} {path}\n"));
        }
        SourceHash::from_digest(digest.finalize().into())
    }

    /// The file that exports the handler: the first of `preferred` that is there, else the only
    /// code there is, else the usual place.
    pub(crate) fn entry(&self, preferred: &[String]) -> Option<String> {
        let wanted = preferred.iter().find_map(|wanted| {
            let wanted = wanted.trim_start_matches("./").trim_end_matches('/');
            let stem = wanted.rsplit_once('.').map_or(wanted, |(stem, _)| stem);
            let index = format!("{wanted}/index");
            self.0
                .contains_key(wanted)
                .then(|| wanted.to_owned())
                .or_else(|| [stem, wanted, &index].iter().find_map(|stem| self.code_at(stem)))
        });
        let only = || {
            let mut code = self.0.keys().filter(|path| is_code(path));
            code.next().filter(|_| code.next().is_none()).cloned()
        };
        wanted
            .or_else(only)
            .or_else(|| ENTRY_STEMS.iter().find_map(|stem| self.code_at(stem)))
            .filter(|entry| is_code(entry))
    }

    fn code_at(&self, stem: &str) -> Option<String> {
        let paths = CODE_EXTENSIONS.iter().map(|extension| format!("{stem}.{extension}"));
        paths.into_iter().find(|path| self.0.contains_key(path))
    }

    /// Makes the files durable as the source of this version.
    pub(crate) async fn store(
        &self,
        artifacts: &dyn ArtifactStore,
        key: &ArtifactKey,
    ) -> Result<(), ArtifactError> {
        let bytes = match self.0.values().next() {
            Some(only) if self.0.len() == 1 => only.clone(),
            _ => {
                let files = self.clone();
                tokio::task::spawn_blocking(move || archive::write(&files.0))
                    .await
                    .map_err(io::Error::other)
                    .and_then(|packed| packed)
                    .map_err(|source| ArtifactError::Backend {
                        operation: "write",
                        key: key.to_string(),
                        source: source.into(),
                    })?
                    .into()
            }
        };
        artifacts.put(key, bytes).await
    }

    /// Reads back what [`Self::store`] stored and checks it.
    pub(crate) async fn load(
        artifacts: &dyn ArtifactStore,
        function: FunctionId,
        source: &Source,
        hash: &SourceHash,
    ) -> Result<Self, LoadError> {
        let total: u64 = source.files.iter().map(|file| file.bytes).sum();
        let n_files = source.files.len() as u64;
        let max_bytes = total + archive::max_headers_bytes(n_files);
        let bytes = artifacts.get(&source_key(function, source, hash), max_bytes).await?;
        let (source, hash) = (source.clone(), hash.clone());
        tokio::task::spawn_blocking(move || {
            let bounds =
                SourceBounds { bytes: total, files: u32::try_from(n_files).unwrap_or(u32::MAX) };
            let files = match &source.files[..] {
                [only] => Self(BTreeMap::from([(only.path.clone(), bytes)])),
                _ => Self::check(archive::read(&bytes, bounds)?, bounds)?,
            };
            let is_right = Self::hash_of(&files.listing(), &files) == hash;
            if is_right { Ok(files) } else { Err(LoadError::OtherHash) }
        })
        .await?
    }

    /// Writes the files below a directory that is empty. Blocks.
    pub(crate) fn write_to(&self, directory: &Path) -> io::Result<()> {
        for (path, bytes) in &self.0 {
            let path = directory.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// Where the source of a version is stored.
pub(crate) fn source_key(function: FunctionId, source: &Source, hash: &SourceHash) -> ArtifactKey {
    stored_under(function, source.stored_version, hash, source.only_file())
}

/// The same, of a source whose files are not at hand: of one file by its path.
pub(crate) fn stored_under(
    function: FunctionId,
    version: u32,
    hash: &SourceHash,
    only_file: Option<&str>,
) -> ArtifactKey {
    let name = only_file.unwrap_or(PACKED_NAME);
    ArtifactKey::Source { function, version, path: format!("{hash}/{name}") }
}

/// The hash of the source that is stored under this path.
pub(super) fn hash_in(path: &str) -> Option<SourceHash> {
    path.split_once('/')?.0.parse().ok()
}

/// Whether esbuild reads it as JavaScript or TypeScript.
pub(crate) fn is_code(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty() && !path.ends_with(".d.ts") && CODE_EXTENSIONS.contains(&extension)
    })
}

pub(super) fn check_path(path: &str) -> Result<(), SourceError> {
    let rule = if path.is_empty() || path.len() > MAX_PATH_BYTES {
        "it must have 1 to 400 bytes"
    } else if path.starts_with('/') {
        "it must be relative"
    } else if path.contains('\\') || path.chars().any(char::is_control) {
        "it must not contain '\\' or control characters"
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "it must not contain empty parts, '.' or '..'"
    } else if path.split('/').any(|part| part.len() > MAX_NAME_BYTES)
        || path.split('/').count() > MAX_DEPTH
    {
        "it is nested too deep or a part of it is too long"
    } else if path.split('/').any(|part| NOT_SOURCE.contains(&part)) {
        "node_modules and .git are not source; list packages in dependencies"
    } else {
        return Ok(());
    };
    // A path of 300 KB is no help in a message.
    Err(SourceError::BadPath { path: path.chars().take(100).collect(), rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SourceBounds = SourceBounds { bytes: 10_000, files: 10 };

    fn files(entries: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        entries.iter().map(|(p, c)| ((*p).to_owned(), Bytes::from((*c).to_owned()))).collect()
    }

    fn checked(entries: &[(&str, &str)]) -> SourceFiles {
        SourceFiles::check(files(entries), BOUNDS).unwrap()
    }

    #[test]
    fn paths_that_leave_the_project_are_refused() {
        let long = "x".repeat(300);
        let deep = "a/".repeat(40) + "b.js";
        for path in [
            "",
            "/etc/passwd",
            "../a.js",
            "a/../b.js",
            "./a.js",
            "a//b.js",
            "a\\b.js",
            "a\0.js",
            "a/",
            "node_modules/x/index.js",
            "a/.git/config",
            &long,
            &deep,
        ] {
            let refused = SourceFiles::check(files(&[(path, "1")]), BOUNDS);
            assert!(matches!(refused, Err(SourceError::BadPath { .. })), "{path:?}");
        }
        assert!(SourceFiles::check(files(&[("src/ü.test.ts", "1")]), BOUNDS).is_ok());
        let both = SourceFiles::check(files(&[("a", "1"), ("a/b.js", "1")]), BOUNDS);
        assert!(matches!(both, Err(SourceError::FileAndDirectory(_))));
    }

    #[test]
    fn size_and_number_are_bounded() {
        let big = "x".repeat(10_001);
        let too_large = SourceFiles::check(files(&[("a.js", &big)]), BOUNDS);
        assert!(matches!(too_large, Err(SourceError::TooLarge { .. })));
        let names: Vec<_> = (0..11).map(|n| format!("{n}.js")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(matches!(
            SourceFiles::check(files(&many), BOUNDS),
            Err(SourceError::TooMany { .. })
        ));
    }

    #[test]
    fn hashes_depend_on_content_and_names_only() {
        let hash = |source: &SourceFiles| SourceFiles::hash_of(&source.listing(), source);
        let one = checked(&[("index.ts", "abc")]);
        assert_eq!(hash(&one), SourceHash::of(b"abc"));
        let two = checked(&[("b.js", "2"), ("a.js", "1")]);
        assert_eq!(hash(&two), hash(&checked(&[("a.js", "1"), ("b.js", "2")])));
        assert_ne!(hash(&two), hash(&checked(&[("a.js", "2"), ("b.js", "1")])));
    }

    #[test]
    fn the_entry_is_found() {
        for (names, preferred, entry) in [
            (&["f.mjs"][..], &[][..], Some("f.mjs")),
            (&["a.js", "index.ts", "index.js"], &[], Some("index.ts")),
            (&["lib.js", "src/index.ts"], &[], Some("src/index.ts")),
            (&["README.md", "fn.ts", "package.json"], &[], Some("fn.ts")),
            (&["a.js", "b.js"], &[], None),
            (&["a.js", "b.js"], &["./b.js"], Some("b.js")),
            (&["a.js", "b.ts"], &["b.js"], Some("b.ts")),
            (&["a.js", "lib/index.js"], &["lib"], Some("lib/index.js")),
            (&["a.js", "index.js"], &["dist/gone.js"], Some("index.js")),
            (&["README.md"], &[], None),
        ] {
            let entries: Vec<_> = names.iter().map(|name| (*name, "")).collect();
            let preferred: Vec<_> = preferred.iter().map(|p: &&str| (*p).to_owned()).collect();
            assert_eq!(checked(&entries).entry(&preferred).as_deref(), entry, "{names:?}");
        }
    }
}
