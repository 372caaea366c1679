//! The walks that write: what is not in the target yet is added.

use std::io::Read;
use std::path::{Path, PathBuf};

use cloudserve_store::transfer::{Kind, Record, StoredObject, Transfer};
use futures::future::try_join_all;
use tempfile::{NamedTempFile, TempDir, TempPath};
use tokio::runtime::Runtime;

use super::ImportError;
use super::target::Objects;
use crate::admin::archive::{Step, Visitor};
use crate::admin::progress::Progress;

/// Records added at once, at most, and bytes of their lines after which they are.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Objects stored at the same time, at most, and bytes of temporary files after which they are.
const UPLOADS: usize = 8;
const UPLOAD_BYTES: u64 = 64 * 1024 * 1024;

/// Which walk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Accounts and nothing else; ends after them.
    Accounts,
    /// All but accounts.
    Rest,
}

/// A [`Visitor`] that adds what it visits.
pub(super) struct Apply<'a> {
    runtime: &'a Runtime,
    transfer: &'a Transfer,
    stage: Stage,
    kind: Kind,
    batch: Vec<Record>,
    batch_bytes: usize,
    /// What was there before.
    objects: Objects<'a>,
    uploads: Vec<(String, TempPath)>,
    upload_bytes: u64,
    directory: TempDir,
    seen: u64,
    progress: Progress,
}

impl<'a> Apply<'a> {
    pub(super) fn begin(
        runtime: &'a Runtime,
        transfer: &'a Transfer,
        stage: Stage,
    ) -> Result<Self, ImportError> {
        let temporary = &transfer.temporary;
        let directory = TempDir::with_prefix_in("cloudserve-import-", temporary)
            .map_err(|source| failed(temporary, source))?;
        let doing = match stage {
            Stage::Accounts => "importing accounts",
            Stage::Rest => "importing everything else",
        };
        Ok(Self {
            runtime,
            transfer,
            stage,
            kind: Kind::Users,
            batch: Vec::new(),
            batch_bytes: 0,
            objects: Objects::of(runtime, transfer),
            uploads: Vec::new(),
            upload_bytes: 0,
            directory,
            seen: 0,
            progress: Progress::begin(doing),
        })
    }

    /// After the walk.
    pub(super) fn end(mut self) -> Result<(), ImportError> {
        self.insert()?;
        self.store()
    }

    fn news(&mut self) {
        self.seen += 1;
        self.progress.at(&"records and objects", self.seen);
    }

    fn insert(&mut self) -> Result<(), ImportError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        Ok(self.runtime.block_on(self.transfer.records.insert(self.kind, batch))?)
    }

    fn store(&mut self) -> Result<(), ImportError> {
        let uploads = std::mem::take(&mut self.uploads);
        self.upload_bytes = 0;
        let stored = uploads.iter().map(|(key, file)| self.transfer.objects.put(key, file));
        self.runtime.block_on(try_join_all(stored))?;
        Ok(())
    }

    /// Whether the target held it before, which the first walk has compared.
    fn is_there(&mut self, key: &str) -> Result<bool, ImportError> {
        while let Some(found) = self.objects.peek()? {
            if found.key.as_str() >= key {
                return Ok(found.key == key);
            }
            self.objects.pass();
        }
        Ok(false)
    }
}

fn failed(directory: &Path, source: std::io::Error) -> ImportError {
    ImportError::Temporary { directory: PathBuf::from(directory), source }
}

impl Visitor for Apply<'_> {
    type Error = ImportError;

    fn record(&mut self, record: Record, bytes: usize) -> Result<Step, ImportError> {
        self.news();
        let kind = record.kind();
        if self.stage == Stage::Accounts && kind > Kind::Users {
            return Ok(Step::Stop);
        }
        if (self.stage == Stage::Accounts) != (kind == Kind::Users) {
            return Ok(Step::On);
        }
        if kind != self.kind {
            self.insert()?;
            self.kind = kind;
        }
        self.batch.push(record);
        self.batch_bytes += bytes;
        if self.batch.len() >= BATCH_ROWS || self.batch_bytes >= BATCH_BYTES {
            self.insert()?;
        }
        Ok(Step::On)
    }

    fn object(
        &mut self,
        object: &StoredObject,
        content: &mut dyn Read,
    ) -> Result<Step, ImportError> {
        if self.stage == Stage::Accounts {
            return Ok(Step::Stop);
        }
        self.news();
        if self.is_there(&object.key)? {
            return Ok(Step::On);
        }
        let directory = self.directory.path();
        let mut file =
            NamedTempFile::new_in(directory).map_err(|source| failed(directory, source))?;
        std::io::copy(content, &mut file).map_err(|source| failed(directory, source))?;
        self.uploads.push((object.key.clone(), file.into_temp_path()));
        self.upload_bytes += object.bytes;
        if self.uploads.len() >= UPLOADS || self.upload_bytes >= UPLOAD_BYTES {
            self.store()?;
        }
        Ok(Step::On)
    }
}
