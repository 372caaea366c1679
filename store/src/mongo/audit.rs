//! The audit trail.

use cloudserve_protocol::ids::{AuditId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::database::{Database, Failed, inserting};
use super::schema::AUDIT;
use super::values::{Key, date, document, older, parse, time};
use crate::StoreError;
use crate::account::{Actor, AuditEntry};
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::Page;

#[derive(Serialize, Deserialize)]
pub(super) struct EntryDocument {
    #[serde(rename = "_id")]
    id: Uuid,
    user: Uuid,
    /// JSON: who it is has an id or has none.
    actor: String,
    action: String,
    subject: Option<String>,
    detail: String,
    at: DateTime,
}

impl EntryDocument {
    pub(super) fn of(entry: AuditEntry) -> Result<Self, StoreError> {
        Ok(Self {
            id: entry.id.key(),
            user: entry.user_id.key(),
            actor: serde_json::to_string(&entry.actor).map_err(StoreError::unavailable)?,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
            at: date(entry.at),
        })
    }
}

/// Where in the trail an entry is.
#[derive(Deserialize)]
struct Place {
    #[serde(rename = "_id")]
    id: Uuid,
    at: DateTime,
}

/// Adds an entry; what is too old goes with it, and what is more than may be.
pub(super) async fn record(
    database: &Database,
    entry: AuditEntry,
    max_entries: u32,
) -> Result<(), StoreError> {
    let oldest = entry.oldest_kept();
    let user = entry.user_id.key();
    let row = document(&EntryDocument::of(entry)?)?;
    let audit = database.collection(AUDIT);
    let write = async {
        audit.insert_one(row).await.map_err(inserting)?;
        audit.delete_many(doc! { "user": user, "at": { "$lt": date(oldest) } }).await?;
        // The oldest that stays.
        let last = audit
            .find_one(doc! { "user": user })
            .sort(doc! { "at": -1, "_id": -1 })
            .skip(u64::from(max_entries.saturating_sub(1)))
            .projection(doc! { "at": 1 })
            .await?;
        if let Some(last) = last {
            let last: Place = parse("audit entry", &last)?;
            let mut surplus = doc! { "user": user };
            surplus.extend(older("at", Cursor { time: time(last.at), id: last.id.bytes() }));
            audit.delete_many(surplus).await?;
        }
        Ok::<_, Failed>(())
    };
    database.bounded(write).await
}

/// A page, newest first.
pub(super) async fn read(
    database: &Database,
    user_id: UserId,
    limit: u32,
    from: Cursor,
) -> Result<Page<AuditEntry>, StoreError> {
    let limit = page_limit(limit);
    let mut filter = doc! { "user": user_id.key() };
    filter.extend(older("at", from));
    let audit = database.collection(AUDIT);
    let read = async {
        audit
            .find(filter)
            .sort(doc! { "at": -1, "_id": -1 })
            .limit(i64::from(limit) + 1)
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| Ok(entry(parse("audit entry", &row)?)?))
            .try_collect()
            .await
    };
    let rows: Vec<AuditEntry> = database.bounded(read).await?;
    let (items, next) = finish_page(rows, limit, |entry: &AuditEntry| Cursor {
        time: entry.at,
        id: *entry.id.as_bytes(),
    });
    Ok(Page { items, next })
}

pub(super) fn entry(found: EntryDocument) -> Result<AuditEntry, StoreError> {
    let actor: Actor = serde_json::from_str(&found.actor)
        .map_err(|error| StoreError::corrupt("audit entry", error))?;
    Ok(AuditEntry {
        id: AuditId::of(found.id),
        user_id: UserId::of(found.user),
        actor,
        action: found.action,
        subject: found.subject,
        detail: found.detail,
        at: time(found.at),
    })
}
