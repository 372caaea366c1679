//! The first walk: is the archive whole, do its environments open, is there nothing else in the
//! target.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cloudserve_identity::{SealError, Sealer};
use cloudserve_store::function::Version;
use cloudserve_store::transfer::{Kind, Record, StoredObject, Transfer};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use super::ImportError;
use super::target::{Objects, Records, object_line, sha256_of};
use crate::admin::archive::{Step, Tally, Visitor};
use crate::admin::progress::Progress;
use crate::secrets::{LostKeys, key_id};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the target is to hold in the end.
pub(super) struct Expected {
    /// The lines of each kind, as this release writes them.
    pub(super) records: BTreeMap<Kind, Tally>,
    /// The objects, by [`object_line`].
    pub(super) objects: Tally,
    /// Records that are not there yet.
    pub(super) absent_records: u64,
    /// Objects that are not there yet.
    pub(super) absent_objects: u64,
}

/// A [`Visitor`] that writes nothing.
pub(super) struct Check<'a> {
    runtime: &'a Runtime,
    transfer: &'a Transfer,
    records: Records<'a>,
    objects: Objects<'a>,
    environments: Environments,
    expected: Expected,
    progress: Progress,
    seen: u64,
}

impl<'a> Check<'a> {
    pub(super) fn begin(
        runtime: &'a Runtime,
        transfer: &'a Transfer,
        sealer: Option<Sealer>,
        lost: LostKeys,
    ) -> Self {
        let expected = Expected {
            records: Kind::ALL.map(|kind| (kind, Tally::default())).into(),
            objects: Tally::default(),
            absent_records: 0,
            absent_objects: 0,
        };
        Self {
            runtime,
            transfer,
            records: Records::of(runtime, transfer),
            objects: Objects::of(runtime, transfer),
            environments: Environments { sealer, lost, ..Environments::default() },
            expected,
            progress: Progress::begin("checking the archive"),
            seen: 0,
        }
    }

    /// After the archive was accepted as a whole.
    pub(super) fn end(mut self) -> Result<Expected, ImportError> {
        self.environments.end()?;
        if let Some(record) = self.records.rest()? {
            return Err(not_empty(&record));
        }
        if let Some(object) = self.objects.peek()? {
            return Err(ImportError::NotEmpty { what: format!("the object {}", object.key) });
        }
        Ok(self.expected)
    }

    fn news(&mut self) {
        self.seen += 1;
        self.progress.at(&"records and objects", self.seen);
    }
}

fn name(record: &Record) -> String {
    format!("record {} of {}", record.key(), record.kind())
}

fn not_empty(record: &Record) -> ImportError {
    ImportError::NotEmpty { what: name(record) }
}

impl Visitor for Check<'_> {
    type Error = ImportError;

    fn record(&mut self, record: Record, _: usize) -> Result<Step, ImportError> {
        self.news();
        if let Record::Version(version) = &record {
            self.environments.check(version);
        }
        let line = record.to_line()?;
        self.expected.records.entry(record.kind()).or_default().line(&line);
        if let Some(other) = self.records.enter(record.kind())? {
            return Err(not_empty(&other));
        }
        match self.records.peek()? {
            Some(found) if found.key() < record.key() => return Err(not_empty(found)),
            Some(found) if found.key() == record.key() => {
                if found.to_line()? != line {
                    return Err(ImportError::Differs { what: name(&record) });
                }
                self.records.pass();
            }
            _ => self.expected.absent_records += 1,
        }
        Ok(Step::On)
    }

    fn object(
        &mut self,
        object: &StoredObject,
        content: &mut dyn Read,
    ) -> Result<Step, ImportError> {
        self.news();
        self.expected.objects.line(&object_line(object));
        match self.objects.peek()? {
            Some(found) if found.key < object.key => {
                return Err(ImportError::NotEmpty { what: format!("the object {}", found.key) });
            }
            Some(found) if found.key == object.key => {
                let is_equal = found.bytes == object.bytes
                    && sha256(content)
                        == Some(sha256_of(self.runtime, self.transfer, &object.key)?);
                if !is_equal {
                    let what = format!("object {}", object.key);
                    return Err(ImportError::Differs { what });
                }
                self.objects.pass();
            }
            _ => self.expected.absent_objects += 1,
        }
        Ok(Step::On)
    }
}

/// `None` if it cannot be read, which the reader of the archive knows, too.
fn sha256(content: &mut dyn Read) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match content.read(&mut buffer).ok()? {
            0 => return Some(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Whether all environments open that are not lost.
#[derive(Default)]
struct Environments {
    sealer: Option<Sealer>,
    /// What is sealed under these may stay closed.
    lost: LostKeys,
    /// Sealed under keys that are not known.
    unknown: u64,
    keys: BTreeSet<String>,
    /// Sealed under something else, or damaged.
    closed: u64,
    first: Option<String>,
}

impl Environments {
    fn check(&mut self, version: &Version) {
        if version.env.0.is_empty() {
            return;
        }
        let opened = match &self.sealer {
            Some(sealer) => sealer.open(version.function_id, &version.env).map(drop),
            None => Err(SealError::UnknownKey { key_id: key_id(&version.env) }),
        };
        match opened {
            Ok(()) => {}
            Err(_) if self.lost.sealed(&version.env) => {}
            Err(SealError::UnknownKey { key_id }) => {
                self.unknown += 1;
                self.keys.insert(key_id);
            }
            Err(SealError::DoesNotOpen | SealError::NoRandomness(_)) => {
                self.closed += 1;
                let (id, number) = (version.function_id, version.version);
                self.first.get_or_insert_with(|| format!("{id}, version {number}"));
            }
        }
    }

    fn end(&mut self) -> Result<(), ImportError> {
        if self.unknown > 0 {
            let keys: Vec<String> = std::mem::take(&mut self.keys).into_iter().collect();
            return Err(ImportError::UnknownKeys { versions: self.unknown, keys: keys.join(", ") });
        }
        match self.first.take() {
            Some(first) => Err(ImportError::DoNotOpen { versions: self.closed, first }),
            None => Ok(()),
        }
    }
}
