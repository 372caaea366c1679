//! Reading an archive, once from its beginning to its end: every line and every byte is checked
//! against the manifest, which only its last entry is. Whoever acts on what is read before that
//! has read it before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use cloudserve_store::transfer::{Key, Kind, Record, SCHEMA, StoredObject};
use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{
    ArchiveError, FORMAT, INDEX, INDEX_ROWS, IndexEntry, MANIFEST, Manifest, Names, OBJECTS,
    OPENING, Opening, PRODUCT, RECORDS, Tally, Versions,
};

/// More than a piece of records or of the index ever is: the longest record, and what was before
/// it.
const MAX_PIECE_BYTES: u64 = 256 * 1024 * 1024;
/// More than the manifest ever is.
const MAX_DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Step {
    On,
    /// What was read is enough.
    Stop,
}

/// What is done with what is read.
pub(in crate::admin) trait Visitor {
    /// Why it cannot be done.
    type Error: From<ArchiveError>;

    /// A record, in the order of kinds and keys, and how long its line is.
    fn record(&mut self, record: Record, bytes: usize) -> Result<Step, Self::Error>;

    /// An object, in the order of keys. What is left of the content is read by the caller.
    fn object(
        &mut self,
        object: &StoredObject,
        content: &mut dyn Read,
    ) -> Result<Step, Self::Error>;
}

/// Reads an archive. `None`: the visitor stopped it.
pub(in crate::admin) fn read<V: Visitor>(
    path: &Path,
    visitor: &mut V,
) -> Result<Option<Manifest>, V::Error> {
    let file = File::open(path).map_err(ArchiveError::Open)?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut reading = Reading::default();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(|error| reading.unreadable(error))?;
        if reading.entry(&mut entry, visitor)? == Step::Stop {
            return Ok(None);
        }
    }
    let manifest = reading.manifest.ok_or(ArchiveError::CutOff)?;
    // The checksum of the compression comes after the end of the archive in it.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(unreadable)?;
    let behind = rest.into_inner().read(&mut [0]).map_err(unreadable)?;
    if behind > 0 {
        return Err(ArchiveError::damaged("there is something behind its end").into());
    }
    Ok(Some(manifest))
}

fn unreadable(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::CutOff,
        _ => ArchiveError::Unreadable(error),
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    opening: Option<Opening>,
    records: BTreeMap<Kind, Tally>,
    last: Option<(Kind, Key)>,
    names: Names,
    versions: Versions,
    /// Objects that the index has not named yet.
    unnamed: Vec<IndexEntry>,
    last_object: Option<String>,
    objects: Tally,
    manifest: Option<Manifest>,
}

/// The part of an opening that every release reads.
#[derive(Deserialize)]
struct Formats {
    product: String,
    format: u32,
    schema: u32,
}

impl Reading {
    /// What an error means before the first entry was read: nearly every file is no archive.
    fn unreadable(&self, error: io::Error) -> ArchiveError {
        match (&self.opening, unreadable(error)) {
            (None, ArchiveError::Unreadable(_)) => ArchiveError::Foreign,
            (_, error) => error,
        }
    }

    fn entry<V: Visitor, R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        visitor: &mut V,
    ) -> Result<Step, V::Error> {
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| ArchiveError::damaged("a name in it is no text"))?;
        if self.opening.is_none() {
            self.open(&name, entry)?;
            return Ok(Step::On);
        }
        if self.manifest.is_some() {
            return Err(ArchiveError::damaged("there is something behind its manifest").into());
        }
        if let Some(key) = name.strip_prefix(OBJECTS) {
            return self.object(key, entry, visitor);
        }
        if name.starts_with(RECORDS) {
            let lines = text(&name, entry, MAX_PIECE_BYTES)?;
            return self.lines(&lines, visitor);
        }
        if name.starts_with(INDEX) {
            let lines = text(&name, entry, MAX_PIECE_BYTES)?;
            self.index(&lines)?;
        } else if name == MANIFEST {
            let manifest = document(&text(&name, entry, MAX_DOCUMENT_BYTES)?, &name)?;
            self.compare(&manifest)?;
            self.manifest = Some(manifest);
        } else {
            return Err(ArchiveError::damaged(format!("nobody knows what {name} is")).into());
        }
        Ok(Step::On)
    }

    fn open(&mut self, name: &str, entry: &mut impl Read) -> Result<(), ArchiveError> {
        if name != OPENING {
            return Err(ArchiveError::Foreign);
        }
        let text = text(name, entry, MAX_DOCUMENT_BYTES)?;
        let formats: Formats = serde_json::from_str(&text).map_err(|_| ArchiveError::Foreign)?;
        if formats.product != PRODUCT {
            return Err(ArchiveError::Foreign);
        }
        for (what, found, known) in
            [("format", formats.format, FORMAT), ("schema", formats.schema, SCHEMA)]
        {
            if found > known {
                return Err(ArchiveError::TooNew { what, found, known });
            }
        }
        self.opening = Some(document(&text, name)?);
        Ok(())
    }

    fn lines<V: Visitor>(&mut self, lines: &str, visitor: &mut V) -> Result<Step, V::Error> {
        if self.last_object.is_some() {
            return Err(ArchiveError::damaged("records come after objects").into());
        }
        for line in lines.lines() {
            let record = Record::parse(line)
                .map_err(|error| ArchiveError::damaged(format!("a record: {error}")))?;
            let place = (record.kind(), record.key());
            if self.last.as_ref().is_some_and(|last| *last >= place) {
                let what = format!("{} {} is not in its place", place.0, place.1);
                return Err(ArchiveError::damaged(what).into());
            }
            if let Record::Function(function) = &record
                && !self.names.add(function)
            {
                let what = format!(
                    "account {} has two functions {:?}; export again",
                    function.user_id,
                    function.name.as_str()
                );
                return Err(ArchiveError::damaged(what).into());
            }
            self.records.entry(place.0).or_default().line(line);
            self.versions.record(&record);
            self.last = Some(place);
            if visitor.record(record, line.len())? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        Ok(Step::On)
    }

    fn object<V: Visitor, R: Read>(
        &mut self,
        key: &str,
        entry: &mut tar::Entry<'_, R>,
        visitor: &mut V,
    ) -> Result<Step, V::Error> {
        let misplaced = self.last_object.as_deref().is_some_and(|last| last >= key);
        if misplaced || self.unnamed.len() >= INDEX_ROWS {
            let what = format!("object {key} is not in its place");
            return Err(ArchiveError::damaged(what).into());
        }
        self.last_object = Some(key.to_owned());
        let object = StoredObject { key: key.to_owned(), bytes: entry.size() };
        let mut content = Hashed { content: entry, read: 0, hash: Sha256::new(), failed: None };
        let step = visitor.object(&object, &mut content);
        // An error of the archive is what matters, whatever became of it at the visitor's.
        let rest = io::copy(&mut content, &mut io::sink());
        if let Some(error) = content.failed.take().or_else(|| rest.err()) {
            return Err(unreadable(error).into());
        }
        let step = step?;
        if content.read != object.bytes {
            return Err(ArchiveError::CutOff.into());
        }
        let sha256 = hex::encode(content.hash.finalize());
        self.versions.object(key);
        self.unnamed.push(IndexEntry { key: object.key, bytes: object.bytes, sha256 });
        Ok(step)
    }

    fn index(&mut self, lines: &str) -> Result<(), ArchiveError> {
        let mut found = std::mem::take(&mut self.unnamed).into_iter();
        for line in lines.lines() {
            let entry: IndexEntry = document(line, INDEX)?;
            match found.next() {
                Some(object) if object == entry => self.objects.object(&entry, line),
                _ => {
                    let what = format!("object {} is not what was written", entry.key);
                    return Err(ArchiveError::damaged(what));
                }
            }
        }
        match found.next() {
            None => Ok(()),
            Some(object) => {
                Err(ArchiveError::damaged(format!("object {} is not in the index", object.key)))
            }
        }
    }

    fn compare(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        if let Some(object) = self.unnamed.first() {
            let what = format!("object {} is not in the index", object.key);
            return Err(ArchiveError::damaged(what));
        }
        let nothing = Tally::default().part();
        for kind in Kind::ALL {
            let found = self.records.get(&kind).map_or_else(|| nothing.clone(), Tally::part);
            if manifest.records.get(&kind).unwrap_or(&nothing) != &found {
                let what = format!("its {kind} are not what was written");
                return Err(ArchiveError::damaged(what));
            }
        }
        if manifest.objects != self.objects.part() {
            return Err(ArchiveError::damaged("its objects are not what was written"));
        }
        let learned =
            (self.versions.count, self.versions.missing_objects(), &self.versions.master_keys);
        if learned != (manifest.versions, manifest.missing_objects, &manifest.master_keys) {
            return Err(ArchiveError::damaged("its versions are not what was written"));
        }
        Ok(())
    }
}

fn document<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, ArchiveError> {
    serde_json::from_str(text).map_err(|error| ArchiveError::damaged(format!("{name}: {error}")))
}

fn text(name: &str, entry: &mut impl Read, max_bytes: u64) -> Result<String, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ArchiveError::damaged(format!("{name} is longer than anything we write")));
    }
    String::from_utf8(bytes).map_err(|_| ArchiveError::damaged(format!("{name} is no text")))
}

/// The content of an object on its way to the visitor.
struct Hashed<'a, R> {
    content: &'a mut R,
    read: u64,
    hash: Sha256,
    /// What the visitor was told, and may have told as its own.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.content.read(buffer) {
            Ok(n) => {
                self.read += n as u64;
                self.hash.update(&buffer[..n]);
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failed.get_or_insert(error);
                Err(told)
            }
        }
    }
}
