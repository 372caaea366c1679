//! How long logs and single calls are kept: the server itself removes what is older.
//!
//! Set by those who serve, and by nobody else: whoever opens an installation to operate or to move
//! it may know other ages, and what is removed is gone. Set beside the start ([`super::beside`]) and
//! not in it: over rows that are there already an index is made, which takes as long as there are many.

use std::time::Duration;

use mongodb::bson::doc;

use super::database::{Database, Failed};
use super::schema::{LOGS, LONGEST_AGE, USAGES, expiring};
use super::values::has_code;
use crate::StoreError;

/// How long what calls leave behind is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Logs.
    pub logs: Duration,
    /// Single calls; their sums by day are kept for good. `None`: for good.
    pub usages: Option<Duration>,
}

const AGE_INDEX: &str = "age";
const INDEX_NOT_FOUND: i32 = 27;
const INDEX_OPTIONS_CONFLICT: i32 = 85;

pub(super) async fn apply(database: &Database, ages: Ages) -> Result<(), StoreError> {
    keep_for(database, LOGS, ages.logs).await?;
    match ages.usages {
        Some(age) => keep_for(database, USAGES, age).await?,
        None => keep_for_good(database, USAGES).await?,
    }
    Ok(())
}

/// Makes the server remove records of this age.
async fn keep_for(database: &Database, name: &'static str, age: Duration) -> Result<(), Failed> {
    let collection = database.collection(name);
    match collection.create_index(expiring("timestamp", AGE_INDEX, age)).await {
        // It was another age before.
        Err(error) if has_code(&error, INDEX_OPTIONS_CONFLICT) => {
            let seconds = i64::try_from(age.min(LONGEST_AGE).as_secs()).unwrap_or(i64::MAX);
            let index = doc! { "name": AGE_INDEX, "expireAfterSeconds": seconds };
            database.handle().run_command(doc! { "collMod": name, "index": index }).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// Makes the server remove no records, whatever their age.
async fn keep_for_good(database: &Database, name: &'static str) -> Result<(), Failed> {
    let collection = database.collection(name);
    // Even to drop what is not there waits for every transaction, and everybody else behind it.
    let names = collection.list_index_names().await?;
    if !names.iter().any(|name| name == AGE_INDEX) {
        return Ok(());
    }
    match collection.drop_index(AGE_INDEX).await {
        Err(error) if !has_code(&error, INDEX_NOT_FOUND) => Err(error.into()),
        _ => Ok(()),
    }
}
