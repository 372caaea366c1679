//! Sums over usage: the documents of a day, one for each writing process, are one record.

use std::collections::HashSet;

use cloudserve_protocol::ids::{FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, Uuid, doc};
use serde::Deserialize;

use crate::StoreError;
use crate::mongo::database::{Database, Failed, insert_absent};
use crate::mongo::schema::USAGE_DAYS;
use crate::mongo::values::{Key as _, document, parse};
use crate::telemetry::Latency;
use crate::transfer::{Key, PAGE_ROWS, Record, UsageSums};

/// The share of the sums that imports write.
const SHARD: i32 = 0;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DayKey {
    function_id: Uuid,
    day: i64,
    user_id: Uuid,
}

impl DayKey {
    fn key(&self) -> Key {
        Key::Day(self.function_id.bytes(), self.day, self.user_id.bytes())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DayDocument {
    #[serde(rename = "_id")]
    key: DayKey,
    executed: i64,
    errors: i64,
    cold: i64,
    duration_ms: f64,
    cpu_ms: f64,
    memory_mb: f64,
    gb_seconds: f64,
    /// By the names of the buckets; one without calls may be absent.
    #[serde(default)]
    latency: Document,
}

/// The identity of the sums of a day, in the one order of fields there is.
fn day_key(key: &Key, shard: i32) -> Result<Document, StoreError> {
    let (function, day, user) = key.day()?;
    Ok(doc! {
        "functionId": Uuid::from_bytes(function),
        "day": day,
        "userId": Uuid::from_bytes(user),
        "shard": shard,
    })
}

pub(super) async fn page(
    database: &Database,
    after: Option<&Key>,
) -> Result<Vec<Record>, StoreError> {
    let filter = match after {
        None => Document::new(),
        Some(key) => doc! { "_id": { "$gt": day_key(key, i32::MAX)? } },
    };
    let collection = database.collection(USAGE_DAYS);
    let read = async {
        let mut found = collection.find(filter).sort(doc! { "_id": 1 }).await?;
        let mut sums: Vec<UsageSums> = Vec::new();
        while let Some(row) = found.try_next().await? {
            let row: DayDocument = parse("usage sum", &row)?;
            let is_same = sums.last().is_some_and(|last| last.is_of(&row.key));
            if !is_same {
                if sums.len() == PAGE_ROWS as usize {
                    break;
                }
                sums.push(UsageSums::nothing(&row.key));
            }
            if let Some(last) = sums.last_mut() {
                last.add(&row)?;
            }
        }
        Ok::<_, Failed>(sums)
    };
    let sums = database.bounded(read).await?;
    Ok(sums.into_iter().map(Record::UsageDay).collect())
}

impl UsageSums {
    fn nothing(key: &DayKey) -> Self {
        Self {
            function_id: FunctionId::of(key.function_id),
            day: key.day,
            user_id: UserId::of(key.user_id),
            executed: 0,
            errors: 0,
            cold: 0,
            duration_ms: 0.0,
            cpu_ms: 0.0,
            memory_mb: 0.0,
            gb_seconds: 0.0,
            latency: Default::default(),
        }
    }

    fn is_of(&self, key: &DayKey) -> bool {
        (self.function_id.key(), self.day, self.user_id.key())
            == (key.function_id, key.day, key.user_id)
    }

    fn add(&mut self, row: &DayDocument) -> Result<(), StoreError> {
        self.executed += row.executed;
        self.errors += row.errors;
        self.cold += row.cold;
        self.duration_ms += row.duration_ms;
        self.cpu_ms += row.cpu_ms;
        self.memory_mb += row.memory_mb;
        self.gb_seconds += row.gb_seconds;
        for (bucket, calls) in self.latency.iter_mut().enumerate() {
            if let Some(more) = row.latency.get(Latency::field(bucket)) {
                let more = more.as_i64().or_else(|| more.as_i32().map(i64::from));
                *calls +=
                    more.ok_or_else(|| StoreError::corrupt("usage sum", "a bucket is no number"))?;
            }
        }
        Ok(())
    }

    fn document(&self) -> Result<RawDocumentBuf, StoreError> {
        let key = Record::UsageDay(self.clone()).key();
        let mut row = doc! {
            "_id": day_key(&key, SHARD)?,
            "functionId": self.function_id.key(),
            "day": self.day,
            "userId": self.user_id.key(),
            "executed": self.executed,
            "errors": self.errors,
            "cold": self.cold,
            "durationMs": self.duration_ms,
            "cpuMs": self.cpu_ms,
            "memoryMb": self.memory_mb,
            "gbSeconds": self.gb_seconds,
        };
        let buckets = self.latency.iter().enumerate().filter(|(_, calls)| **calls > 0);
        let latency: Document =
            buckets.map(|(bucket, calls)| (Latency::field(bucket), (*calls).into())).collect();
        if !latency.is_empty() {
            row.insert("latency", latency);
        }
        document(&row)
    }
}

#[derive(Deserialize)]
struct KeyDocument {
    #[serde(rename = "_id")]
    key: DayKey,
}

/// Adds the sums of days that have none, whichever process wrote those that have.
pub(super) async fn insert(database: &Database, records: Vec<Record>) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
    let between = doc! { "_id": {
        "$gte": day_key(&first.key(), i32::MIN)?,
        "$lte": day_key(&last.key(), i32::MAX)?,
    } };
    let collection = database.collection(USAGE_DAYS);
    let read = async {
        let mut found = collection.find(between).projection(doc! { "_id": 1 }).await?;
        let mut known = HashSet::new();
        while let Some(row) = found.try_next().await? {
            known.insert(parse::<KeyDocument>("usage sum", &row)?.key.key());
        }
        Ok::<_, Failed>(known)
    };
    let known = database.bounded(read).await?;
    let mut rows = Vec::with_capacity(records.len());
    for record in &records {
        match record {
            Record::UsageDay(sums) if !known.contains(&record.key()) => rows.push(sums.document()?),
            Record::UsageDay(_) => {}
            _ => return Err(StoreError::BadCursor),
        }
    }
    insert_absent(database, &database.collection(USAGE_DAYS), rows).await
}
