//! Everything in the two files, for another installation: [`read`] and [`insert`] by kind.

pub(super) mod calls;
mod insert;
mod read;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::calls::Walk;
use super::database::Database;
use crate::StoreError;
use crate::transfer::{Key, Kind, Record, RecordTransfer};

/// [`RecordTransfer`] over SQLite.
pub(crate) struct SqliteTransfer {
    meta: Arc<Database>,
    telemetry: Arc<Database>,
    /// Usage is not stored in the order it is read in.
    calls: Arc<Mutex<Walk>>,
    /// The file that says that an import is not finished.
    note: PathBuf,
}

impl SqliteTransfer {
    pub(crate) fn new(meta: Arc<Database>, telemetry: Arc<Database>, note: PathBuf) -> Self {
        Self { meta, telemetry, calls: Arc::default(), note }
    }

    /// The file records of this kind are in.
    fn database(&self, kind: Kind) -> &Database {
        match kind {
            Kind::RevokedTokens | Kind::ApiKeys | Kind::Audit | Kind::Functions | Kind::Users => {
                &self.meta
            }
            Kind::UsageDays | Kind::Usages | Kind::Logs => &self.telemetry,
        }
    }

    async fn change_note(&self, change: fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let note = self.note.clone();
        let work = move || {
            change(&note)?;
            let directory = note.parent().ok_or(io::ErrorKind::InvalidInput)?;
            File::open(directory)?.sync_all()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(StoreError::unavailable)?
            .map_err(StoreError::unavailable)
    }
}

#[async_trait]
impl RecordTransfer for SqliteTransfer {
    async fn read(&self, kind: Kind, after: Option<&Key>) -> Result<Vec<Record>, StoreError> {
        let (calls, after) = (self.calls.clone(), after.cloned());
        self.database(kind).read(move |c| read::page(c, &calls, kind, after.as_ref())).await
    }

    async fn insert(&self, kind: Kind, records: Vec<Record>) -> Result<(), StoreError> {
        let calls = self.calls.clone();
        self.database(kind)
            .write(move |c, _| {
                if kind == Kind::Usages {
                    // A walk knows the calls that were there when it began.
                    *calls.lock() = Walk::default();
                }
                insert::all(c, &records)
            })
            .await
    }

    async fn begin_import(&self) -> Result<(), StoreError> {
        self.change_note(|note| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).mode(0o600).open(note).map(drop)
        })
        .await
    }

    async fn finish_import(&self) -> Result<(), StoreError> {
        self.change_note(|note| match std::fs::remove_file(note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}
