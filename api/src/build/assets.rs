//! The files of a project that are read when it runs.
//!
//! They are stored beside the bundle as one archive and lie beside it when it runs, each where it
//! was in the project. The bundle's last line names the archive by its hash, so that the bundle's
//! own hash stands for both.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use cloudserve_protocol::artifact::assets_line;
use sha2::{Digest, Sha256};

use super::archive;
use super::source::{SourceFiles, is_code};

/// What is there under these names when the bundle runs is not the project's.
const TAKEN: [&str; 2] = ["bundle.js", "bundle.js.map"];

/// What only says how to build. Of other programs than npm as well, whose lock files count for nothing.
const FOR_THE_BUILD: [&str; 8] = [
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
    "tsconfig.json",
    "jsconfig.json",
];

/// The files of a project beside its bundle, packed.
pub(super) struct Assets {
    pub(super) archive: Bytes,
    /// Ends the bundle.
    pub(super) line: String,
}

/// Packs what is read at run time: what is not code, and, when modules are looked for then
/// (`with_code`), JavaScript and the manifest too. `None` if that is nothing. Blocks.
pub(super) fn pack(
    files: &SourceFiles,
    entry: &str,
    with_code: bool,
) -> io::Result<Option<Assets>> {
    let kept: BTreeMap<String, Bytes> = files
        .iter()
        .filter(|(path, _)| is_kept(path, entry, with_code))
        .map(|(path, bytes)| (path.to_owned(), bytes.clone()))
        .collect();
    if kept.is_empty() {
        return Ok(None);
    }
    let archive = Bytes::from(archive::write(&kept)?);
    let line = assets_line(&hex::encode(Sha256::digest(&archive)));
    Ok(Some(Assets { archive, line }))
}

fn is_kept(path: &str, entry: &str, with_code: bool) -> bool {
    // `process.argv[1]` may name it, and programs look where that really is. One at the top is the bundle.
    if with_code && path == entry && path.contains('/') {
        return true;
    }
    let is_typescript =
        [".ts", ".tsx", ".mts", ".cts", ".jsx"].iter().any(|ending| path.ends_with(ending));
    if TAKEN.contains(&path) || FOR_THE_BUILD.contains(&path) || is_typescript {
        return false;
    }
    with_code || !(is_code(path) || path == "package.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_at_run_time_is_kept() {
        for (path, alone, with_code) in [
            ("views/a.html", true, true),
            ("data.json", true, true),
            ("src/a.js", false, true),
            ("src/a.ts", false, false),
            ("src/a.d.ts", false, false),
            ("package.json", false, true),
            ("package-lock.json", false, false),
            ("yarn.lock", false, false),
            ("pnpm-lock.yaml", false, false),
            ("data/yarn.lock", true, true),
            ("bundle.js", false, false),
        ] {
            assert_eq!(is_kept(path, "src/index.ts", false), alone, "{path}");
            assert_eq!(is_kept(path, "src/index.ts", true), with_code, "{path}");
        }
        for (entry, kept) in [("src/index.ts", true), ("index.ts", false)] {
            assert!(
                is_kept(entry, entry, true) == kept && !is_kept(entry, entry, false),
                "{entry}"
            );
        }
    }
}
