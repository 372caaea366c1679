//! Collections and indexes, and how older databases become like that.
//!
//! `meta` holds the version. A version, once released, is never edited: a change is one more step
//! at the end of the list. Several processes may start at once, so each step can be run twice and
//! at the same time; the version moves forward by compare-and-set. Nobody waits for an index over
//! records that may be many: it is made beside the start ([`super::beside`]).

use std::time::Duration;

use mongodb::IndexModel;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::IndexOptions;
use serde::Deserialize;

use super::database::{Database, Failed};
use super::values::{has_code, is_duplicate, parse};
use crate::{OpenError, StoreError};

pub(super) const USERS: &str = "users";
pub(super) const API_KEYS: &str = "apikeys";
pub(super) const AUDIT: &str = "audit";
pub(super) const REVOKED_TOKENS: &str = "revokedtokens";
pub(super) const FUNCTIONS: &str = "functions";
pub(super) const VERSIONS: &str = "versions";
pub(super) const REMAINS: &str = "remains";
pub(super) const TREES: &str = "trees";
pub(super) const USAGES: &str = "usages";
pub(super) const USAGE_DAYS: &str = "usagedays";
pub(super) const LOGS: &str = "logs";
pub(super) const CHANGES: &str = "changes";
pub(super) const META: &str = "meta";

/// The newest version this release knows.
const VERSION: i64 = 5;
const PRODUCT: &str = "cloudserve";
/// How long notices of changes are kept.
const CHANGES_KEPT: Duration = Duration::from_hours(1);
/// How long a process that has begun may take to say that the database is ours.
const BEGUN_LOOKS: u32 = 50;
const BEGUN_PAUSE: Duration = Duration::from_millis(100);
const NAMESPACE_EXISTS: i32 = 48;
/// The longest age the server can be told.
pub(super) const LONGEST_AGE: Duration = Duration::from_secs(i32::MAX as u64);

#[derive(Deserialize)]
struct SchemaDocument {
    product: String,
    version: i64,
}

/// Brings the database to the newest version.
pub(super) async fn prepare(database: &Database) -> Result<(), OpenError> {
    let failed = |error: StoreError| database.unreachable(error);
    let foreign = || OpenError::ForeignDatabase { name: database.name().to_owned() };
    let mut stored = read(database).await.map_err(failed)?;
    if stored.is_none() {
        let names = database.bounded(database.handle().list_collection_names());
        let is_empty = names.await.map_err(failed)?.is_empty();
        if is_empty {
            begin(database).await.map_err(failed)?;
        }
        // Not empty and yet ours: another process has begun meanwhile.
        stored = begun(database).await.map_err(failed)?;
    }
    let mut version = match stored {
        Some(schema) if schema.product == PRODUCT => schema.version,
        _ => return Err(foreign()),
    };
    if version > VERSION {
        return Err(OpenError::DatabaseTooNew {
            name: database.name().to_owned(),
            found: version,
            known: VERSION,
        });
    }
    while version < VERSION {
        // In version 2, versions say who has queued them, and in version 4 what they take of storage;
        // what is there already is found without the one and counts nothing without the other. Their
        // indexes are made beside the start ([`index_versions`]).
        match version {
            0 => version_1(database).await.map_err(failed)?,
            2 => version_3(database).await.map_err(failed)?,
            4 => version_5(database).await.map_err(failed)?,
            _ => {}
        }
        advance(database, version).await.map_err(failed)?;
        version += 1;
    }
    Ok(())
}

async fn read(database: &Database) -> Result<Option<SchemaDocument>, StoreError> {
    let meta = database.collection(META);
    let found = database.bounded(meta.find_one(doc! { "_id": "schema" })).await?;
    found.as_ref().map(|found: &RawDocumentBuf| parse("schema", found)).transpose()
}

/// What the database says of itself. If somebody has begun with it but not said so yet, waits for
/// that, for a while.
async fn begun(database: &Database) -> Result<Option<SchemaDocument>, StoreError> {
    for _ in 0..BEGUN_LOOKS {
        // The collection is there before what is in it.
        let names = database.bounded(database.handle().list_collection_names()).await?;
        let stored = read(database).await?;
        if stored.is_some() || names.iter().any(|name| name != META) {
            return Ok(stored);
        }
        tokio::time::sleep(BEGUN_PAUSE).await;
    }
    read(database).await
}

/// Says that this database is ours, before anything else is in it.
async fn begin(database: &Database) -> Result<(), StoreError> {
    let row = super::values::document(&doc! {
        "_id": "schema", "product": PRODUCT, "version": 0_i64,
    })?;
    let meta = database.collection(META);
    let insert = async {
        match meta.insert_one(row).await {
            // Another process was faster.
            Err(error) if is_duplicate(&error) => Ok(()),
            Err(error) => Err(Failed::Driver(error)),
            Ok(_) => Ok(()),
        }
    };
    database.bounded(insert).await
}

async fn advance(database: &Database, from: i64) -> Result<(), StoreError> {
    let meta = database.collection(META);
    let next = doc! { "$set": { "version": from + 1 } };
    let is_still = doc! { "_id": "schema", "version": from };
    database.bounded(meta.update_one(is_still, next)).await.map(drop)
}

fn unique(keys: Document) -> IndexModel {
    let options = IndexOptions::builder().unique(true).build();
    IndexModel::builder().keys(keys).options(options).build()
}

fn plain(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

/// Removes a record this long after the time in its field.
pub(super) fn expiring(field: &str, name: &str, after: Duration) -> IndexModel {
    let options =
        IndexOptions::builder().name(name.to_owned()).expire_after(after.min(LONGEST_AGE)).build();
    IndexModel::builder().keys(doc! { field: 1 }).options(options).build()
}

/// Only what waits or is in work, so it stays small whatever the history.
fn of_the_queue(keys: Document) -> IndexModel {
    let is_queued = doc! { "queuedAt": { "$exists": true } };
    let options = IndexOptions::builder().partial_filter_expression(is_queued).build();
    IndexModel::builder().keys(keys).options(options).build()
}

async fn version_1(database: &Database) -> Result<(), StoreError> {
    let queued = of_the_queue(doc! { "queuedAt": 1, "_id": 1 });
    for (collection, indexes) in [
        (USERS, vec![unique(doc! { "userName": 1 }), unique(doc! { "email": 1 })]),
        (
            API_KEYS,
            vec![
                unique(doc! { "keyHash": 1 }),
                plain(doc! { "user": 1, "createdAt": -1, "_id": -1 }),
            ],
        ),
        (AUDIT, vec![plain(doc! { "user": 1, "at": -1, "_id": -1 })]),
        (REVOKED_TOKENS, vec![expiring("expiresAt", "end", Duration::ZERO)]),
        (
            FUNCTIONS,
            vec![
                unique(doc! { "user": 1, "name": 1 }),
                plain(doc! { "user": 1, "createdAt": -1, "_id": -1 }),
            ],
        ),
        (VERSIONS, vec![queued]),
        (
            USAGES,
            vec![
                plain(doc! { "userId": 1, "timestamp": -1, "_id": -1 }),
                plain(doc! { "functionId": 1, "timestamp": -1, "_id": -1 }),
            ],
        ),
        (
            USAGE_DAYS,
            vec![plain(doc! { "userId": 1, "day": 1 }), plain(doc! { "functionId": 1, "day": 1 })],
        ),
        (
            LOGS,
            vec![
                plain(doc! { "functionId": 1, "timestamp": -1, "_id": -1 }),
                plain(doc! { "functionId": 1, "recordedAt": 1, "_id": 1 }),
            ],
        ),
        (CHANGES, vec![expiring("at", "age", CHANGES_KEPT)]),
    ] {
        let collection = database.collection(collection);
        database.bounded(collection.create_indexes(indexes)).await?;
    }
    Ok(())
}

/// What may be stored of functions that are not there.
async fn version_3(database: &Database) -> Result<(), StoreError> {
    let remains = database.collection(REMAINS);
    database.bounded(remains.create_index(plain(doc! { "notedAt": 1 }))).await.map(drop)
}

/// Dependency trees. Made here, since transactions that make a collection get into each other's way.
async fn version_5(database: &Database) -> Result<(), StoreError> {
    let create = async {
        match database.handle().create_collection(TREES).await {
            Err(error) if !has_code(&error, NAMESPACE_EXISTS) => Err(Failed::Driver(error)),
            _ => Ok(()),
        }
    };
    database.bounded(create).await
}

/// Whose deploys wait and whose are in work, what the versions of a function take of storage, and which
/// name a dependency tree. Over versions that are there already this takes as long as there are many;
/// until it is there, all of them are looked through.
pub(super) async fn index_versions(database: &Database) -> Result<(), StoreError> {
    let by_account = of_the_queue(doc! { "status": 1, "queuedBy": 1 });
    let by_bytes = plain(doc! { "_id.functionId": 1, "bytes": 1 });
    let naming = IndexOptions::builder().sparse(true).build();
    let by_tree = IndexModel::builder().keys(doc! { "built.depHash": 1 }).options(naming).build();
    let versions = database.collection(VERSIONS);
    let made = versions.create_indexes([by_account, by_bytes, by_tree]).await;
    made.map(drop).map_err(StoreError::unavailable)
}

/// At which function nobody has looked for longest. Until it is there, all of them are looked through.
pub(super) async fn index_looks(database: &Database) -> Result<(), StoreError> {
    let functions = database.collection(FUNCTIONS);
    let made = functions.create_index(plain(doc! { "lookedAt": 1 })).await;
    made.map(drop).map_err(StoreError::unavailable)
}
