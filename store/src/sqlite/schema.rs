//! What the two files look like, and how older ones become like that.
//!
//! A schema, once released, is never edited: a change is one more file at the end of the list.
//! `PRAGMA user_version` counts the files applied; `application_id` tells the two databases from
//! each other and from files that are not ours.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rusqlite_migration::{M, Migrations};

use super::database::Database;
use crate::OpenError;
use crate::change::LocalFeed;

/// One kind of database file.
pub(super) struct Schema {
    /// `PRAGMA application_id`.
    pub(super) application_id: i32,
    /// How many migrations there are: the newest `PRAGMA user_version`.
    pub(super) version: u32,
    /// The migrations, oldest first.
    pub(super) migrations: Migrations<'static>,
}

impl Schema {
    fn new(application_id: [u8; 4], files: &[&'static str]) -> Self {
        Self {
            application_id: i32::from_be_bytes(application_id),
            version: u32::try_from(files.len()).unwrap_or(u32::MAX),
            migrations: Migrations::new(files.iter().copied().map(M::up).collect()),
        }
    }
}

/// Of `meta.db`, oldest first.
pub(super) const META_FILES: [&str; 10] = [
    include_str!("schema/meta-1.sql"),
    include_str!("schema/meta-2.sql"),
    include_str!("schema/meta-3.sql"),
    include_str!("schema/meta-4.sql"),
    include_str!("schema/meta-5.sql"),
    include_str!("schema/meta-6.sql"),
    include_str!("schema/meta-7.sql"),
    include_str!("schema/meta-8.sql"),
    include_str!("schema/meta-9.sql"),
    include_str!("schema/meta-10.sql"),
];
/// Of `telemetry.db`, oldest first.
pub(super) const TELEMETRY_FILES: [&str; 4] = [
    include_str!("schema/telemetry-1.sql"),
    include_str!("schema/telemetry-2.sql"),
    include_str!("schema/telemetry-3.sql"),
    include_str!("schema/telemetry-4.sql"),
];

static META: LazyLock<Schema> = LazyLock::new(|| Schema::new(*b"CSmd", &META_FILES));
static TELEMETRY: LazyLock<Schema> = LazyLock::new(|| Schema::new(*b"CStd", &TELEMETRY_FILES));

pub(crate) fn open_meta(path: &Path, feed: LocalFeed) -> Result<Arc<Database>, OpenError> {
    Database::open(path, &META, feed).map(Arc::new)
}

pub(crate) fn open_telemetry(path: &Path, feed: LocalFeed) -> Result<Arc<Database>, OpenError> {
    Database::open(path, &TELEMETRY, feed).map(Arc::new)
}
