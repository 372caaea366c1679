//! Immutable objects: where they live and the store they live in.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::ids::{BundleHash, DepHash, FunctionId};

/// The place of one object. `Display` gives the key under which every back end stores it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactKey {
    /// One file of the source of one version, as it was sent.
    Source {
        /// The function.
        function: FunctionId,
        /// Its version.
        version: u32,
        /// A file name the API chose or checked: relative, `/`-separated, no `..`.
        path: String,
    },
    /// The latest `package.json`.
    PackageJson {
        /// The function.
        function: FunctionId,
    },
    /// The ES module esbuild made.
    Bundle {
        /// The function.
        function: FunctionId,
        /// SHA-256 of the object.
        hash: BundleHash,
    },
    /// The bundle's source map.
    SourceMap {
        /// The function.
        function: FunctionId,
        /// SHA-256 of the bundle it belongs to.
        hash: BundleHash,
    },
    /// Files of the project that are read when it runs, as `.tar.gz`. The bundle names it by its
    /// hash: see [`assets_line`].
    Assets {
        /// The function.
        function: FunctionId,
        /// SHA-256 of the bundle they belong to.
        hash: BundleHash,
    },
    /// The packed dependency tree.
    DependencyTree {
        /// The dependency set.
        hash: DepHash,
    },
    /// What is known of a dependency tree: a JSON [`crate::build::TreeMetadata`].
    DependencyMetadata {
        /// The dependency set.
        hash: DepHash,
    },
    /// What a dependency specification was resolved to, so that the next deploy that names the
    /// same ranges runs no npm. The hash is of the specification.
    Resolution {
        /// SHA-256 (hex) of the canonical specification.
        spec_hash: String,
    },
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { function, version, path } => {
                write!(f, "{function}/src/{version}/{path}")
            }
            Self::PackageJson { function } => write!(f, "{function}/package.json"),
            Self::Bundle { function, hash } => write!(f, "{function}/bundle/{hash}/bundle.js"),
            Self::SourceMap { function, hash } => {
                write!(f, "{function}/bundle/{hash}/bundle.js.map")
            }
            Self::Assets { function, hash } => write!(f, "{function}/bundle/{hash}/assets.tar.gz"),
            Self::DependencyTree { hash } => write!(f, "deps/{hash}/node_modules.tar.gz"),
            Self::DependencyMetadata { hash } => write!(f, "deps/{hash}/metadata.json"),
            Self::Resolution { spec_hash } => write!(f, "deps/resolutions/{spec_hash}.json"),
        }
    }
}

impl ArtifactKey {
    /// The object of a function that has this text as its key.
    #[must_use]
    pub fn of_function(function: FunctionId, text: &str) -> Option<Self> {
        let place = text.strip_prefix(&format!("{function}/"))?;
        let (first, rest) = place.split_once('/').unwrap_or((place, ""));
        let key = match first {
            "package.json" => Self::PackageJson { function },
            "src" => {
                let (version, path) = rest.split_once('/')?;
                Self::Source { function, version: version.parse().ok()?, path: path.to_owned() }
            }
            "bundle" => {
                let (hash, name) = rest.split_once('/')?;
                let hash = hash.parse().ok()?;
                match name {
                    "bundle.js" => Self::Bundle { function, hash },
                    "bundle.js.map" => Self::SourceMap { function, hash },
                    "assets.tar.gz" => Self::Assets { function, hash },
                    _ => return None,
                }
            }
            _ => return None,
        };
        // Numbers can be written in other ways, too.
        (key.to_string() == text).then_some(key)
    }

    /// The object of dependencies, which are everybody's, that has this text as its key.
    #[must_use]
    pub fn of_dependencies(text: &str) -> Option<Self> {
        let (first, name) = text.strip_prefix(DEPENDENCIES)?.split_once('/')?;
        if first == "resolutions" {
            let spec_hash = name.strip_suffix(".json")?;
            let is_hash = spec_hash.bytes().all(|b| b.is_ascii_hexdigit());
            return is_hash.then(|| Self::Resolution { spec_hash: spec_hash.to_owned() });
        }
        let hash = first.parse().ok()?;
        match name {
            "node_modules.tar.gz" => Some(Self::DependencyTree { hash }),
            "metadata.json" => Some(Self::DependencyMetadata { hash }),
            _ => None,
        }
    }
}

/// What the keys of dependencies begin with.
pub const DEPENDENCIES: &str = "deps/";

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its place.
    pub key: ArtifactKey,
    /// When it was written last, by the clock of the storage.
    pub stored_at: SystemTime,
}

const ASSETS_LINE: &str = "\n//# assets=";

/// The last line of a bundle that has assets of this SHA-256 (hex).
#[must_use]
pub fn assets_line(sha256: &str) -> String {
    format!("{ASSETS_LINE}{sha256}\n")
}

/// The SHA-256 (hex) of a bundle's assets, if it has any.
#[must_use]
pub fn assets_of(bundle: &[u8]) -> Option<&str> {
    const HASH_CHARS: usize = 64;
    let tail = bundle.len().checked_sub(ASSETS_LINE.len() + HASH_CHARS + 1)?;
    let line = std::str::from_utf8(&bundle[tail..]).ok()?;
    let hash = line.strip_prefix(ASSETS_LINE)?.strip_suffix('\n')?;
    hash.bytes().all(|b| b.is_ascii_hexdigit()).then_some(hash)
}

/// What `WebSocketPair` is called in sources.
pub const WEB_SOCKET_PAIR: &str = "WebSocketPair";

const PAIR_LINE: &str = "\n//# web-socket-pair=yes\n";
const NO_PAIR_LINE: &str = "\n//# web-socket-pair=no\n";
const AWS_EVENTS_LINE: &str = "\n//# events=aws\n";

/// What a bundle needs of the platform that most do not. Its build says so in lines at its end, before
/// that of the assets: whoever loads it need not look it through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// It carries an adapter for AWS's events, which expects them exactly as AWS makes them.
    pub aws_events: bool,
    /// It names [`WEB_SOCKET_PAIR`]: `Response` has to take one before anything of the bundle has run.
    pub web_socket_pair: bool,
}

impl Needs {
    /// The lines that say so.
    #[must_use]
    pub fn lines(self) -> String {
        let pair = if self.web_socket_pair { PAIR_LINE } else { NO_PAIR_LINE };
        let events = if self.aws_events { AWS_EVENTS_LINE } else { "" };
        format!("{pair}{events}")
    }

    /// What a bundle says of itself. Those of earlier releases say nothing of `WebSocketPair`, and are
    /// looked through.
    #[must_use]
    pub fn of(bundle: &str) -> Self {
        let assets = assets_of(bundle.as_bytes()).map_or(0, |sha256| assets_line(sha256).len());
        let bundle = &bundle[..bundle.len() - assets];
        let without_events = bundle.strip_suffix(AWS_EVENTS_LINE);
        let rest = without_events.unwrap_or(bundle);
        let web_socket_pair = rest.ends_with(PAIR_LINE)
            || !rest.ends_with(NO_PAIR_LINE) && rest.contains(WEB_SOCKET_PAIR);
        Self { aws_events: without_events.is_some(), web_socket_pair }
    }
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is no such object.
    #[error("object {key} does not exist")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },
    /// The bytes are not those that were stored.
    #[error("object {key} does not have the expected content")]
    Corrupt {
        /// The key that was asked for.
        key: String,
    },
    /// The object is larger than the caller said it may be.
    #[error("object {key} is larger than {max_bytes} bytes")]
    TooLarge {
        /// The key that was asked for.
        key: String,
        /// The bound.
        max_bytes: u64,
    },
    /// The back end failed.
    #[error("{operation} of object {key} failed")]
    Backend {
        /// What was tried: "read", "write", "delete", "list".
        operation: &'static str,
        /// The key.
        key: String,
        /// What the back end said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Object storage. Local files in the embedded default, S3 in production.
///
/// When a write returns, the object is durable (fsynced, or acknowledged by the service) and
/// readers see all of it or nothing.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Writes an object. Writing the same key again replaces it.
    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<(), ArtifactError>;

    /// Writes an object from a local file, without holding it in memory.
    async fn put_file(&self, key: &ArtifactKey, file: &Path) -> Result<(), ArtifactError>;

    /// Reads a whole object of at most `max_bytes`.
    async fn get(&self, key: &ArtifactKey, max_bytes: u64) -> Result<Bytes, ArtifactError>;

    /// Reads an object piece by piece.
    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError>;

    /// Whether the object exists.
    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError>;

    /// Removes one object. Removing nothing is no error.
    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError>;

    /// Removes everything that belongs to a function. Removing nothing is no error. Shared
    /// dependency trees stay.
    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError>;

    /// The objects of a function, in no particular order. They are asked for as the stream is read, a
    /// bounded number at a time; what is written or removed meanwhile may be among them or not.
    fn list(&self, function: FunctionId)
    -> BoxStream<'static, Result<ListedObject, ArtifactError>>;

    /// The objects of dependencies whose keys come after this one, in the order of the keys' text. Asked for
    /// as in [`Self::list`].
    fn list_dependencies(
        &self,
        after: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_function_are_known_by_their_text() {
        let function = FunctionId::new();
        let hash = BundleHash::of(b"bundle");
        for key in [
            ArtifactKey::Source { function, version: 7, path: "abc/src/f.mjs".to_owned() },
            ArtifactKey::PackageJson { function },
            ArtifactKey::Bundle { function, hash: hash.clone() },
            ArtifactKey::SourceMap { function, hash: hash.clone() },
            ArtifactKey::Assets { function, hash: hash.clone() },
        ] {
            let text = key.to_string();
            assert_eq!(ArtifactKey::of_function(function, &text), Some(key));
            assert_eq!(ArtifactKey::of_function(FunctionId::new(), &text), None);
        }
        for place in [
            "",
            "src/07/f.mjs",
            "src/7",
            "bundle/abc/bundle.js",
            &format!("bundle/{hash}/other"),
            "package.json/x",
            "other",
        ] {
            assert_eq!(ArtifactKey::of_function(function, &format!("{function}/{place}")), None);
        }
    }

    #[test]
    fn keys_of_dependencies_are_known_by_their_text() {
        let hash = DepHash::of(b"deps");
        for key in [
            ArtifactKey::DependencyTree { hash: hash.clone() },
            ArtifactKey::DependencyMetadata { hash: hash.clone() },
            ArtifactKey::Resolution { spec_hash: "ab".repeat(32) },
        ] {
            assert_eq!(ArtifactKey::of_dependencies(&key.to_string()), Some(key));
        }
        for text in [
            "deps/",
            "deps/abc/metadata.json",
            "deps/resolutions/a/b.json",
            "deps/resolutions/ab",
            &format!("deps/{hash}"),
            &format!("deps/{hash}/other"),
            &format!("{hash}/metadata.json"),
            &format!("deps/{}/metadata.json", hash.as_str().to_uppercase()),
        ] {
            assert_eq!(ArtifactKey::of_dependencies(text), None, "{text}");
        }
    }

    #[test]
    fn a_bundle_says_what_it_needs() {
        let assets = assets_line(&"0f".repeat(32));
        for aws_events in [false, true] {
            for web_socket_pair in [false, true] {
                let needs = Needs { aws_events, web_socket_pair };
                // Whatever is in it.
                for code in ["export default 1", "export default 'WebSocketPair'", ""] {
                    for end in ["", &assets] {
                        let bundle = format!("{code}{}{end}", needs.lines());
                        assert_eq!(Needs::of(&bundle), needs, "{bundle}");
                    }
                }
            }
        }
    }

    #[test]
    fn bundles_that_do_not_say_it_are_looked_through() {
        let assets = assets_line(&"0f".repeat(32));
        for (code, web_socket_pair) in [
            ("export default 1;\n", false),
            ("export default () => new WebSocketPair();\n", true),
            ("", false),
        ] {
            for (events, aws_events) in [("", false), (AWS_EVENTS_LINE, true)] {
                for end in ["", &assets] {
                    let bundle = format!("{code}{events}{end}");
                    let expected = Needs { aws_events, web_socket_pair };
                    assert_eq!(Needs::of(&bundle), expected, "{bundle}");
                }
            }
        }
    }
}
