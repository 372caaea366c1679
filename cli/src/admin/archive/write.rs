//! Writing an archive: records as they are read, objects as they come.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cloudserve_store::Timestamp;
use cloudserve_store::transfer::{Kind, Record, SCHEMA};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::Header;

use super::{
    FORMAT, INDEX, INDEX_ROWS, IndexEntry, MANIFEST, Manifest, OBJECTS, OPENING, Opening,
    PIECE_BYTES, PRODUCT, RECORDS, Tally, Versions,
};

/// Of its owner alone: there are password hashes in it.
const MODE: u32 = 0o600;

/// An archive that is being written: all records of each kind in the order of [`Kind::ALL`], then
/// the objects in the order of their keys.
pub(in crate::admin) struct ArchiveWriter<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    created_at: Timestamp,
    pieces: u64,
    piece: Vec<u8>,
    records: BTreeMap<Kind, Tally>,
    versions: Versions,
    index: Vec<u8>,
    index_rows: usize,
    objects: Tally,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins.
    pub(in crate::admin) fn begin(out: W) -> io::Result<Self> {
        let mut archive = Self {
            // Most of it is compressed already.
            tar: tar::Builder::new(GzEncoder::new(out, Compression::fast())),
            created_at: Timestamp::now(),
            pieces: 0,
            piece: Vec::new(),
            records: Kind::ALL.map(|kind| (kind, Tally::default())).into(),
            versions: Versions::default(),
            index: Vec::new(),
            index_rows: 0,
            objects: Tally::default(),
        };
        let opening = Opening {
            product: PRODUCT.to_owned(),
            format: FORMAT,
            schema: SCHEMA,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: archive.created_at,
        };
        archive.document(OPENING, &opening)?;
        Ok(archive)
    }

    /// Adds a record.
    pub(in crate::admin) fn record(&mut self, record: &Record) -> io::Result<()> {
        let kind = record.kind();
        let line = record.to_line()?;
        self.records.entry(kind).or_default().line(&line);
        self.versions.record(record);
        self.piece.extend_from_slice(line.as_bytes());
        self.piece.push(b'\n');
        if self.piece.len() >= PIECE_BYTES { self.end_records(kind) } else { Ok(()) }
    }

    /// Ends a piece of records: after the last one of a kind.
    pub(in crate::admin) fn end_records(&mut self, kind: Kind) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            self.pieces += 1;
            self.entry(&format!("{RECORDS}{kind}/{:06}.jsonl", self.pieces), &piece)?;
        }
        // Its memory is used again.
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }

    /// Adds an object of this size.
    pub(in crate::admin) fn object(
        &mut self,
        key: &str,
        bytes: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let mut content = Exactly { content, left: bytes, hash: Sha256::new() };
        let mut header = header(bytes);
        self.tar.append_data(&mut header, format!("{OBJECTS}{key}"), &mut content)?;
        let sha256 = hex::encode(content.hash.finalize());
        let entry = IndexEntry { key: key.to_owned(), bytes, sha256 };
        let line = serde_json::to_string(&entry)?;
        self.objects.object(&entry, &line);
        self.versions.object(key);
        self.index.extend_from_slice(line.as_bytes());
        self.index.push(b'\n');
        self.index_rows += 1;
        if self.index_rows >= INDEX_ROWS { self.end_index() } else { Ok(()) }
    }

    fn end_index(&mut self) -> io::Result<()> {
        let index = std::mem::take(&mut self.index);
        if !index.is_empty() {
            self.pieces += 1;
            self.entry(&format!("{INDEX}{:06}.jsonl", self.pieces), &index)?;
        }
        self.index_rows = 0;
        Ok(())
    }

    /// Ends it; what it was written to is flushed by nobody yet.
    pub(in crate::admin) fn finish(mut self) -> io::Result<(W, Manifest)> {
        self.end_index()?;
        let manifest = Manifest {
            format: FORMAT,
            schema: SCHEMA,
            created_at: self.created_at,
            records: self.records.iter().map(|(kind, tally)| (*kind, tally.part())).collect(),
            versions: self.versions.count,
            objects: self.objects.part(),
            missing_objects: self.versions.missing_objects(),
            master_keys: std::mem::take(&mut self.versions.master_keys),
        };
        self.document(MANIFEST, &manifest)?;
        let out = self.tar.into_inner()?.finish()?;
        Ok((out, manifest))
    }

    fn document<T: Serialize>(&mut self, name: &str, document: &T) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(document)?;
        text.push(b'\n');
        self.entry(name, &text)
    }

    fn entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.tar.append_data(&mut header(content.len() as u64), name, content)
    }
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(MODE);
    header.set_size(bytes);
    header
}

/// An object that has another size than its entry says would spoil what comes after it.
#[derive(Debug, thiserror::Error)]
#[error("the object changed its size while it was read")]
struct ChangedSize;

/// As many bytes as were announced, and an error if there are fewer or more.
struct Exactly<'a> {
    content: &'a mut dyn Read,
    left: u64,
    hash: Sha256,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        let left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other(ChangedSize))?;
        if n == 0 && !buffer.is_empty() && left > 0 {
            return Err(io::Error::other(ChangedSize));
        }
        self.left = left;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
