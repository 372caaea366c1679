//! What CloudServe remembers: domain types, the traits of its storage, and the back ends.
//!
//! All SQL, BSON and S3 live here; no other crate names a table, a collection or a bucket. The
//! traits are shaped so that a document
//! database and an object service fit behind them: no transaction leaves a method, uniqueness is
//! an outcome and not an exception, and lists are read by cursor.

pub mod account;
pub mod change;
mod cursor;
pub mod embedded;
mod epochs;
pub mod error;
pub mod function;
mod local;
mod mongo;
mod object_key;
mod production;
mod pruning;
mod s3;
mod span;
mod sqlite;
pub mod telemetry;
pub mod time;
pub mod transfer;
mod tree;

use std::sync::Arc;

use cloudserve_protocol::artifact::ArtifactStore;

pub use account::AccountStore;
pub use change::{Change, ChangeFeed};
pub use embedded::{
    DataDirLock, OpenError, open_embedded, open_embedded_exclusive, open_embedded_import,
    open_embedded_transfer,
};
pub use epochs::{Epochs, Subject};
pub use error::StoreError;
pub use function::FunctionStore;
pub use mongo::{Ages, MongoOptions};
pub use production::{
    open_production, open_production_import, open_production_objects, open_production_records,
    open_production_transfer,
};
pub use s3::{ChecksumMode, S3Options};
pub use telemetry::TelemetryStore;
pub use time::Timestamp;
pub use tree::TreeStore;

/// The back ends of one installation, chosen once at start.
#[derive(Clone)]
pub struct Stores {
    /// Accounts, keys and revoked tokens.
    pub accounts: Arc<dyn AccountStore>,
    /// Functions, versions and the deploy queue.
    pub functions: Arc<dyn FunctionStore>,
    /// Which dependency trees are in use.
    pub trees: Arc<dyn TreeStore>,
    /// Usage and logs.
    pub telemetry: Arc<dyn TelemetryStore>,
    /// Sources, bundles and dependency trees.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// What changed, for caches.
    pub changes: Arc<dyn ChangeFeed>,
}
