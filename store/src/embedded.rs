//! The embedded installation: SQLite and local files in one data directory.
//!
//! ```text
//! lock          held by the one process that serves this directory
//! meta.db       accounts, keys, functions, versions
//! telemetry.db  usage and logs
//! objects/      sources, bundles, dependency trees
//! importing     there while an import is not finished
//! ```
//! Invariant: at most one process serves a data directory. Others may open it beside the server
//! (`cloudserve admin`), but only the holder of the lock repairs what a crash left behind.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Stores;
use crate::change::LocalFeed;
use crate::local::LocalObjects;
use crate::sqlite::{
    self, SqliteAccounts, SqliteFunctions, SqliteTelemetry, SqliteTransfer, SqliteTrees,
};
use crate::transfer::Transfer;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Another process serves this directory.
    #[error("{} is in use by another cloudserve process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The database file was written by something else.
    #[error("{} is not a CloudServe database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database file was written by a later release.
    #[error(
        "{} has schema {found} but this release knows only {known}; use a newer cloudserve",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema this release knows.
        known: u32,
    },
    /// Only a part of what is to be there is there.
    #[error("an import into {place} was not finished; run it again, with the same archive")]
    Importing {
        /// The data directory, or the database.
        place: String,
    },
    /// A server cannot be reached, or refuses.
    #[error("{server} at {place} cannot be used")]
    Unreachable {
        /// `MongoDB` or `S3`.
        server: &'static str,
        /// Where it should be.
        place: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database on the server holds something else.
    #[error("the database {name} holds collections that are not CloudServe's; name an empty one")]
    ForeignDatabase {
        /// Its name.
        name: String,
    },
    /// The bucket holds something else.
    #[error("the bucket {name} holds objects that are not CloudServe's; name an empty one")]
    ForeignBucket {
        /// Its name.
        name: String,
    },
    /// What is stored on the server was written by a later release.
    #[error(
        "{name} has version {found} but this release knows only {known}; use a newer cloudserve"
    )]
    DatabaseTooNew {
        /// The database or bucket.
        name: String,
        /// Its version.
        found: i64,
        /// The newest version this release knows.
        known: i64,
    },
    /// The database file cannot be opened or its schema cannot be raised.
    #[error("cannot open the database {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn database<E>(path: &Path) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = path.to_owned();
        move |source| Self::Database { path, source: source.into() }
    }
}

/// The right to serve a data directory. The kernel takes it back when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct DataDirLock {
    data_dir: PathBuf,
    _file: File,
}

impl DataDirLock {
    /// Takes the lock, creating the directory if there is none; [`OpenError::InUse`] if another
    /// process holds it.
    pub fn acquire(data_dir: &Path) -> Result<Self, OpenError> {
        create_private_dir(data_dir)?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(OpenError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { data_dir: data_dir.to_owned(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
        }
    }

    /// The directory it protects.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Opens a data directory beside whoever serves it, creating it if there is none.
///
/// Blocks for some milliseconds. Dropping the last clone of the returned stores finishes queued
/// writes and closes the files.
pub fn open_embedded(data_dir: &Path) -> Result<Stores, OpenError> {
    refuse_unfinished(data_dir)?;
    open(data_dir).map(Parts::stores)
}

/// Opens a data directory to serve it: deploys that were in progress when the last server died
/// are back in the queue at once, and its half-written objects are gone.
pub fn open_embedded_exclusive(lock: &DataDirLock) -> Result<Stores, OpenError> {
    refuse_unfinished(&lock.data_dir)?;
    let parts = open(&lock.data_dir)?;
    let meta = lock.data_dir.join(META_FILE);
    parts.functions.release_leases().map_err(OpenError::database(&meta))?;
    parts.objects.clear_temporary().map_err(OpenError::io(parts.objects.root()))?;
    Ok(parts.stores())
}

/// Opens a data directory to read all of it, beside whoever serves it.
pub fn open_embedded_transfer(data_dir: &Path) -> Result<Transfer, OpenError> {
    refuse_unfinished(data_dir)?;
    open(data_dir).map(|parts| parts.transfer(data_dir))
}

/// Opens a data directory to import into it, also where an import was cut off.
pub fn open_embedded_import(lock: &DataDirLock) -> Result<Transfer, OpenError> {
    let parts = open(&lock.data_dir)?;
    parts.objects.clear_temporary().map_err(OpenError::io(parts.objects.root()))?;
    Ok(parts.transfer(&lock.data_dir))
}

const META_FILE: &str = "meta.db";
const TELEMETRY_FILE: &str = "telemetry.db";
const IMPORTING_FILE: &str = "importing";

fn refuse_unfinished(data_dir: &Path) -> Result<(), OpenError> {
    let note = data_dir.join(IMPORTING_FILE);
    if note.try_exists().map_err(OpenError::io(&note))? {
        return Err(OpenError::Importing { place: data_dir.display().to_string() });
    }
    Ok(())
}

struct Parts {
    meta: Arc<sqlite::Database>,
    telemetry: Arc<sqlite::Database>,
    functions: Arc<SqliteFunctions>,
    objects: Arc<LocalObjects>,
    usage: Arc<SqliteTelemetry>,
    feed: LocalFeed,
}

impl Parts {
    fn stores(self) -> Stores {
        Stores {
            accounts: Arc::new(SqliteAccounts::new(self.meta.clone())),
            functions: self.functions,
            trees: Arc::new(SqliteTrees::new(self.meta)),
            telemetry: self.usage,
            artifacts: self.objects,
            changes: Arc::new(self.feed),
        }
    }

    fn transfer(self, data_dir: &Path) -> Transfer {
        let note = data_dir.join(IMPORTING_FILE);
        Transfer {
            records: Arc::new(SqliteTransfer::new(self.meta, self.telemetry, note)),
            temporary: self.objects.temporary().to_owned(),
            objects: self.objects,
        }
    }
}

fn open(data_dir: &Path) -> Result<Parts, OpenError> {
    create_private_dir(data_dir)?;
    let feed = LocalFeed::new();
    let meta = sqlite::open_meta(&data_dir.join(META_FILE), feed.clone())?;
    let telemetry = sqlite::open_telemetry(&data_dir.join(TELEMETRY_FILE), feed.clone())?;
    let objects_dir = data_dir.join("objects");
    create_private_dir(&objects_dir)?;
    let objects = Arc::new(LocalObjects::open(&objects_dir).map_err(OpenError::io(&objects_dir))?);
    // The names of the files just created.
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(OpenError::io(data_dir))?;

    let usage = Arc::new(SqliteTelemetry::new(telemetry.clone()));
    let functions = Arc::new(SqliteFunctions::new(meta.clone(), usage.clone()));
    Ok(Parts { meta, telemetry, functions, objects, usage, feed })
}

fn create_private_dir(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(OpenError::io(path))
}
