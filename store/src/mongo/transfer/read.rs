//! Pages of all records, by their keys.

use cloudserve_protocol::ids::{FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, RawDocumentBuf, Uuid, doc};
use serde::{Deserialize, Serialize};

use crate::mongo::accounts::{read_api_key, read_user};
use crate::mongo::audit;
use crate::mongo::database::{Database, Failed, Transaction};
use crate::mongo::documents::{FunctionDocument, read_version, versions_of};
use crate::mongo::logs::LogDocument;
use crate::mongo::schema::{
    API_KEYS, AUDIT, FUNCTIONS, LOGS, REVOKED_TOKENS, USAGES, USERS, VERSIONS,
};
use crate::mongo::usage::UsageDocument;
use crate::mongo::values::{Key as _, date, parse, time};
use crate::telemetry::{LogRow, UsageRow};
use crate::transfer::{
    Key, Kind, PAGE_BYTES, PAGE_ROWS, Record, RevokedToken, StoredFunction, at_rest,
};
use crate::{StoreError, Timestamp};

/// Documents asked for at a time: they may be large.
pub(super) const BATCH: u32 = 50;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenDocument {
    #[serde(rename = "_id")]
    pub(super) token_id: String,
    pub(super) expires_at: DateTime,
}

/// What comes after a key, for records that have an id of their own.
fn later(after: Option<&Key>) -> Result<Document, StoreError> {
    Ok(match after {
        None => Document::new(),
        Some(key) => doc! { "_id": { "$gt": Uuid::from_bytes(key.id()?) } },
    })
}

/// Any kind but those that are read with what belongs to them.
pub(super) async fn page(
    database: &Database,
    kind: Kind,
    after: Option<&Key>,
) -> Result<Vec<Record>, StoreError> {
    let rows = |collection, filter| rows(database, collection, filter);
    let records: Result<Vec<Record>, StoreError> = match kind {
        Kind::RevokedTokens => {
            let mut filter = doc! { "expiresAt": { "$gte": date(Timestamp::now()) } };
            if let Some(key) = after {
                filter.insert("_id", doc! { "$gt": key.token()? });
            }
            let found = rows(REVOKED_TOKENS, filter).await?;
            found.iter().map(read_token).collect()
        }
        Kind::ApiKeys => {
            let found = rows(API_KEYS, later(after)?).await?;
            found.iter().map(|row| read_api_key(row).map(Record::ApiKey)).collect()
        }
        Kind::Audit => {
            let found = rows(AUDIT, later(after)?).await?;
            let read = |row| audit::entry(parse("audit entry", row)?).map(Record::Audit);
            found.iter().map(read).collect()
        }
        Kind::Users => {
            let found = rows(USERS, later(after)?).await?;
            found.iter().map(|row| read_user(row).map(Record::User)).collect()
        }
        Kind::Usages => {
            let found = rows(USAGES, later(after)?).await?;
            let read = |row| {
                let row: UsageDocument = parse("usage row", row)?;
                Ok(Record::Usage(UsageRow::from(row)))
            };
            found.iter().map(read).collect()
        }
        Kind::Logs => {
            let found = rows(LOGS, later(after)?).await?;
            let read = |row| {
                let row: LogDocument = parse("log", row)?;
                Ok(Record::Log(LogRow::from(row)))
            };
            found.iter().map(read).collect()
        }
        Kind::Functions | Kind::UsageDays => Err(StoreError::BadCursor),
    };
    records
}

fn read_token(row: &RawDocumentBuf) -> Result<Record, StoreError> {
    let TokenDocument { token_id, expires_at } = parse("revoked token", row)?;
    Ok(Record::RevokedToken(RevokedToken { token_id, expires_at: time(expires_at) }))
}

async fn rows(
    database: &Database,
    collection: &str,
    filter: Document,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    let collection = database.collection(collection);
    let read = async {
        let find = collection.find(filter).sort(doc! { "_id": 1 });
        let mut found = find.limit(PAGE_ROWS.into()).batch_size(BATCH).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = found.try_next().await?
        {
            bytes += row.as_bytes().len();
            rows.push(row);
        }
        Ok::<_, Failed>(rows)
    };
    database.bounded(read).await
}

/// Functions, each with its versions, of one moment.
pub(super) async fn functions(
    database: &Database,
    after: Option<&Key>,
    tx: &mut Transaction,
) -> Result<Vec<Record>, Failed> {
    let (functions, versions) = (database.collection(FUNCTIONS), database.collection(VERSIONS));
    let find = functions.find(later(after)?).sort(doc! { "_id": 1 }).batch_size(BATCH);
    let mut found = find.session(tx.session()).await?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && records.len() < PAGE_ROWS as usize
        && let Some(row) = found.next(tx.session()).await
    {
        let function = stored_function(parse("function", &row?)?);
        let find = versions.find(versions_of(function.id)).sort(doc! { "_id": 1 });
        let mut of_one = find.batch_size(BATCH).session(tx.session()).await?;
        records.push(Record::Function(function));
        while let Some(row) = of_one.next(tx.session()).await {
            let row = row?;
            bytes += row.as_bytes().len();
            records.push(Record::Version(at_rest(read_version(&row)?)));
        }
    }
    Ok(records)
}

fn stored_function(found: FunctionDocument) -> StoredFunction {
    StoredFunction {
        id: FunctionId::of(found.id),
        user_id: UserId::of(found.user),
        name: found.name,
        latest_version: found.latest_version,
        active_version: found.active_version,
        settled_version: found.settled_version,
        visibility: found.visibility,
        created_at: time(found.created_at),
        updated_at: time(found.updated_at),
        deployed_at: found.deployed_at.map(time),
    }
}
