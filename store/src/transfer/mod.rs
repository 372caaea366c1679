//! Everything an installation holds, as it is: for moving it to another one.
//!
//! The other traits keep the rules of the product; these keep none. They walk all records and all
//! objects in one order that is the same over every back end, and put back what was walked. What
//! is derived or of the moment is not part of it: leases, notices of changes, positions.
//!
//! Invariant: what was inserted is read again as the same line ([`Record::to_line`]), whichever
//! back end it was inserted into. Two installations are equal if their lines are.

mod record;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::artifact::ArtifactError;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::object_key::{check, failed};
pub(crate) use record::at_rest;
pub use record::{Record, RevokedToken, StoredFunction, UsageSums};

/// The shape of the lines this release writes. One that changes it reads those before, too.
pub const SCHEMA: u32 = 4;

/// Records of one page at most.
pub(crate) const PAGE_ROWS: u32 = 500;

/// Bytes after which a page ends, with what it has by then: records may hold megabytes of text.
pub(crate) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Both halves of an installation.
#[derive(Clone)]
pub struct Transfer {
    /// What is in the databases.
    pub records: Arc<dyn RecordTransfer>,
    /// What is stored as files.
    pub objects: Arc<dyn ObjectTransfer>,
    /// Where files may lie on their way to the objects. Of a data directory, what was left there is
    /// removed when it is opened to serve or to import.
    pub temporary: PathBuf,
}

/// What is walked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Session tokens that are refused and have not ended by themselves.
    RevokedTokens,
    /// API keys.
    ApiKeys,
    /// The audit trail.
    Audit,
    /// Functions, each followed by its versions.
    Functions,
    /// Accounts.
    Users,
    /// Sums over usage by function, day and account. Not derived: the single calls may have
    /// expired.
    UsageDays,
    /// Usage by call.
    Usages,
    /// Logs.
    Logs,
}

impl Kind {
    /// In the order in which they are walked while servers may run: accounts are never removed,
    /// so those that are read last are all that what was read before belongs to.
    pub const ALL: [Self; 8] = [
        Self::RevokedTokens,
        Self::ApiKeys,
        Self::Audit,
        Self::Functions,
        Self::Users,
        Self::UsageDays,
        Self::Usages,
        Self::Logs,
    ];

    /// Its name, as it serialises.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RevokedTokens => "revokedTokens",
            Self::ApiKeys => "apiKeys",
            Self::Audit => "audit",
            Self::Functions => "functions",
            Self::Users => "users",
            Self::UsageDays => "usageDays",
            Self::Usages => "usages",
            Self::Logs => "logs",
        }
    }

    /// Whether the back end removes old ones by itself, also right after they were inserted.
    #[must_use]
    pub const fn expires(self) -> bool {
        matches!(self, Self::RevokedTokens | Self::Usages | Self::Logs)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What tells the records of a kind apart, and their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of a revoked token.
    Token(String),
    /// Of what has an id of its own.
    Id([u8; 16]),
    /// Of a version; 0 is its function.
    Version([u8; 16], u32),
    /// Of sums: function, day, account.
    Day([u8; 16], i64, [u8; 16]),
}

impl Key {
    pub(crate) fn id(&self) -> Result<[u8; 16], StoreError> {
        match self {
            Self::Id(id) | Self::Version(id, _) => Ok(*id),
            Self::Token(_) | Self::Day(..) => Err(StoreError::BadCursor),
        }
    }

    pub(crate) fn token(&self) -> Result<&str, StoreError> {
        match self {
            Self::Token(token) => Ok(token),
            _ => Err(StoreError::BadCursor),
        }
    }

    pub(crate) fn day(&self) -> Result<([u8; 16], i64, [u8; 16]), StoreError> {
        match self {
            Self::Day(function, day, user) => Ok((*function, *day, *user)),
            _ => Err(StoreError::BadCursor),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |id: &[u8; 16]| cloudserve_protocol::ids::FunctionId::from_bytes(*id);
        match self {
            Self::Token(token) => f.write_str(token),
            Self::Id(id) | Self::Version(id, 0) => shown(id).fmt(f),
            Self::Version(id, version) => write!(f, "{} version {version}", shown(id)),
            Self::Day(function, day, user) => {
                write!(f, "{} day {day} of {}", shown(function), shown(user))
            }
        }
    }
}

/// The records of an installation.
#[async_trait]
pub trait RecordTransfer: Send + Sync {
    /// Records of a kind in the order of their keys, from the one after `after` on; none: that was
    /// the last one. A function and its versions are of one moment and in one page.
    async fn read(&self, kind: Kind, after: Option<&Key>) -> Result<Vec<Record>, StoreError>;

    /// Adds those of these records that are not there yet, all of one kind and in the order of
    /// their keys. Durable when it returns. `Missing`: the account of one is not there.
    async fn insert(&self, kind: Kind, records: Vec<Record>) -> Result<(), StoreError>;

    /// Notes, durably, that an import has begun: until it is finished nobody else opens the
    /// installation.
    async fn begin_import(&self) -> Result<(), StoreError>;

    /// Takes the note away.
    async fn finish_import(&self) -> Result<(), StoreError>;
}

/// An object that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key, as text.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// The objects of an installation.
#[async_trait]
pub trait ObjectTransfer: Send + Sync {
    /// All of them, in the order of the bytes of their keys.
    fn list(&self) -> BoxStream<'static, Result<StoredObject, ArtifactError>>;

    /// Reads an object piece by piece.
    async fn open(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError>;

    /// Stores an object from a local file. Durable when it returns; one that is there already and
    /// equal is left alone where the back end can tell.
    async fn put(&self, key: &str, file: &Path) -> Result<(), ArtifactError>;
}

/// Not the key of an object.
#[derive(Debug, thiserror::Error)]
#[error("this is not the key of an object")]
struct NotAKey;

/// Whether objects may have this key: nothing of ours lies beside the folders of objects.
pub(crate) fn check_key(operation: &'static str, key: &str) -> Result<(), ArtifactError> {
    if !key.contains('/') {
        return Err(failed(operation, key)(NotAKey));
    }
    check(key).map_err(failed(operation, key))
}
