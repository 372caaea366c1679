//! The file that an export is: a compressed tar archive.
//!
//! ```text
//! cloudserve.json                 what this is: the formats it is written in
//! records/<kind>/<number>.jsonl   records of a kind, a line each, in pieces of some megabytes
//! objects/<key>                   an object
//! index/<number>.jsonl            key, size and SHA-256 of each of the objects before it
//! manifest.json                   counts and SHA-256 of all lines of each kind, and of the index
//! ```
//! Invariant: what a reader has accepted as a whole is what was written. The manifest comes last,
//! so an archive that was cut off has none; its hashes are of the lines, whatever the pieces, so
//! equal installations have equal ones. And an account has one function of a name, or nobody could
//! put them back.

mod names;
mod read;
#[cfg(test)]
mod tests;
mod versions;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use cloudserve_store::Timestamp;
use cloudserve_store::transfer::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) use names::Names;
pub(super) use read::{Step, Visitor, read};
pub(super) use versions::Versions;
pub(super) use write::ArchiveWriter;

/// The layout this release writes. It reads those before, too.
const FORMAT: u32 = 1;
const PRODUCT: &str = "cloudserve";

const OPENING: &str = "cloudserve.json";
const RECORDS: &str = "records/";
const OBJECTS: &str = "objects/";
const INDEX: &str = "index/";
const MANIFEST: &str = "manifest.json";

/// Bytes after which a piece of records ends.
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Objects of one piece of the index.
const INDEX_ROWS: usize = 1_000;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("the archive cannot be opened")]
    Open(#[source] io::Error),
    #[error("this is not an export of CloudServe")]
    Foreign,
    #[error(
        "the archive has {what} {found} but this release knows only {known}; use a newer cloudserve"
    )]
    TooNew { what: &'static str, found: u32, known: u32 },
    #[error("the archive is not whole: it ends before its manifest")]
    CutOff,
    #[error("the archive is damaged")]
    Unreadable(#[source] io::Error),
    #[error("the archive is damaged: {what}")]
    Damaged { what: String },
}

impl ArchiveError {
    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// What comes first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    product: String,
    /// The layout of the archive.
    format: u32,
    /// The shape of the records.
    schema: u32,
    /// The release that wrote it.
    release: String,
    created_at: Timestamp,
}

/// What comes last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    /// The layout of the archive.
    pub(super) format: u32,
    /// The shape of the records.
    pub(super) schema: u32,
    /// When it was begun.
    pub(super) created_at: Timestamp,
    /// What there is of each kind.
    pub(super) records: BTreeMap<Kind, Part>,
    /// How many of the functions' records are versions.
    pub(super) versions: u64,
    /// The objects; the hash is of the index.
    pub(super) objects: Part,
    /// Objects that versions need and that were not there.
    pub(super) missing_objects: u64,
    /// Ids of the master keys that environments are sealed under.
    pub(super) master_keys: BTreeSet<String>,
}

/// How much of something there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    /// Records or objects.
    pub(super) count: u64,
    /// Bytes of the lines, or of the objects.
    pub(super) bytes: u64,
    /// SHA-256 (hex) of the lines.
    pub(super) sha256: String,
}

/// A part while it is written or read.
#[derive(Default, Clone)]
pub(super) struct Tally {
    count: u64,
    bytes: u64,
    lines: Sha256,
}

impl Tally {
    /// Counts a line.
    pub(super) fn line(&mut self, line: &str) {
        self.count += 1;
        self.bytes += line.len() as u64 + 1;
        self.hash(line);
    }

    /// Counts an object by its line in the index.
    fn object(&mut self, entry: &IndexEntry, line: &str) {
        self.count += 1;
        self.bytes += entry.bytes;
        self.hash(line);
    }

    fn hash(&mut self, line: &str) {
        self.lines.update(line);
        self.lines.update(b"\n");
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn part(&self) -> Part {
        let sha256 = hex::encode(self.lines.clone().finalize());
        Part { count: self.count, bytes: self.bytes, sha256 }
    }
}

/// What the index says of an object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexEntry {
    key: String,
    bytes: u64,
    sha256: String,
}
