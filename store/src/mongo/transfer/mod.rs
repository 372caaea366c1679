//! Everything in the database, for another installation: [`read`] and [`insert`] by kind.

mod insert;
mod read;
mod sums;

use async_trait::async_trait;
use mongodb::bson::doc;

use super::database::{Database, in_transaction};
use super::schema::META;
use super::values::date;
use crate::transfer::{Key, Kind, Record, RecordTransfer};
use crate::{StoreError, Timestamp};

/// The document of [`META`] that says that an import is not finished.
const NOTE: &str = "import";

/// Whether an import was begun and not finished.
pub(super) async fn is_importing(database: &Database) -> Result<bool, StoreError> {
    let meta = database.collection(META);
    Ok(database.bounded(meta.find_one(doc! { "_id": NOTE })).await?.is_some())
}

/// [`RecordTransfer`] over MongoDB.
pub(crate) struct MongoTransfer {
    database: Database,
}

impl MongoTransfer {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl RecordTransfer for MongoTransfer {
    async fn read(&self, kind: Kind, after: Option<&Key>) -> Result<Vec<Record>, StoreError> {
        match kind {
            Kind::Functions => {
                in_transaction!(self.database, |tx| read::functions(&self.database, after, &mut tx))
            }
            Kind::UsageDays => sums::page(&self.database, after).await,
            _ => read::page(&self.database, kind, after).await,
        }
    }

    async fn insert(&self, kind: Kind, records: Vec<Record>) -> Result<(), StoreError> {
        match kind {
            Kind::UsageDays => sums::insert(&self.database, records).await,
            _ => insert::all(&self.database, records).await,
        }
    }

    async fn begin_import(&self) -> Result<(), StoreError> {
        let meta = self.database.collection(META);
        let begun = doc! { "$setOnInsert": { "begunAt": date(Timestamp::now()) } };
        let note = meta.update_one(doc! { "_id": NOTE }, begun).upsert(true);
        self.database.bounded(note).await.map(drop)
    }

    async fn finish_import(&self) -> Result<(), StoreError> {
        let meta = self.database.collection(META);
        self.database.bounded(meta.delete_one(doc! { "_id": NOTE })).await.map(drop)
    }
}
