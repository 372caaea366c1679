//! Usage rows and the running sums over them.
//!
//! Invariant: `usagedays` is the sum of `usages` by function, day (UTC) and account, with the
//! number of calls in each bucket of latency. Both are
//! written in one transaction, and a row that was there already is added to neither. The sums of
//! a day are spread over a few documents, one per writing process, so that gateways do not wait
//! for each other; a query adds them up.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, RawDocumentBuf, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::database::{Database, Failed, Transaction, in_transaction, update_all};
use super::schema::{USAGE_DAYS, USAGES};
use super::telemetry::of;
use super::values::{Key, date, document, is_duplicate, older, parse, time};
use crate::cursor::{Cursor, finish_page, page_limit};
use crate::function::Page;
use crate::span::{Span, days_of, name_of_day};
use crate::telemetry::{
    CallStatus, FunctionStats, LATENCY_BUCKETS, Latency, LatencyDay, UsageDay, UsageOfFunction,
    UsageQuery, UsageRow, UsageTotals, measured,
};
use crate::{StoreError, Timestamp};

impl Latency {
    /// The name of a bucket in a document.
    pub(super) fn field(bucket: usize) -> String {
        format!("b{bucket}")
    }
}

/// Documents over which the sums of one day are spread.
const SHARDS: u8 = 8;

/// Rows written in one transaction. Bounds what is done again when two meet.
const ROWS_PER_TRANSACTION: usize = 1_000;

/// The share of the sums that this process adds to.
pub(super) fn shard() -> i32 {
    i32::from(Uuid::new().bytes()[0] % SHARDS)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageDocument {
    #[serde(rename = "_id")]
    execution_id: Uuid,
    function_id: Uuid,
    user_id: Uuid,
    version: u32,
    duration: f64,
    cpu: f64,
    memory_used: f64,
    status: CallStatus,
    code: Cow<'static, str>,
    cold: bool,
    timestamp: DateTime,
}

impl From<&UsageRow> for UsageDocument {
    fn from(row: &UsageRow) -> Self {
        Self {
            execution_id: row.execution_id.key(),
            function_id: row.function_id.key(),
            user_id: row.user_id.key(),
            version: row.version,
            duration: measured(row.duration_ms),
            cpu: measured(row.cpu_ms),
            memory_used: measured(row.memory_mb),
            status: row.status,
            code: row.code.clone(),
            cold: row.cold,
            timestamp: date(row.timestamp),
        }
    }
}

impl From<UsageDocument> for UsageRow {
    fn from(row: UsageDocument) -> Self {
        Self {
            function_id: FunctionId::of(row.function_id),
            user_id: UserId::of(row.user_id),
            execution_id: ExecutionId::of(row.execution_id),
            version: row.version,
            duration_ms: row.duration,
            cpu_ms: row.cpu,
            memory_mb: row.memory_used,
            status: row.status,
            code: row.code,
            cold: row.cold,
            timestamp: time(row.timestamp),
        }
    }
}

#[derive(Default)]
struct Sums {
    executed: i64,
    errors: i64,
    cold: i64,
    duration_ms: f64,
    cpu_ms: f64,
    memory_mb: f64,
    gb_seconds: f64,
    latency: Latency,
}

impl Sums {
    fn add(&mut self, row: &UsageDocument) {
        self.executed += 1;
        self.errors += i64::from(row.status == CallStatus::Error);
        self.cold += i64::from(row.cold);
        self.duration_ms += row.duration;
        self.cpu_ms += row.cpu;
        self.memory_mb += row.memory_used;
        self.gb_seconds += row.memory_used / 1_024.0 * (row.duration / 1_000.0);
        self.latency.0[Latency::bucket(row.duration)] += 1;
    }

    /// What is added to the stored sums.
    fn increments(&self) -> Document {
        let mut sums = doc! {
            "executed": self.executed,
            "errors": self.errors,
            "cold": self.cold,
            "durationMs": self.duration_ms,
            "cpuMs": self.cpu_ms,
            "memoryMb": self.memory_mb,
            "gbSeconds": self.gb_seconds,
        };
        for (bucket, calls) in self.latency.0.iter().enumerate().filter(|(_, calls)| **calls > 0) {
            let calls = i64::try_from(*calls).unwrap_or(i64::MAX);
            sums.insert(format!("latency.{}", Latency::field(bucket)), calls);
        }
        sums
    }
}

/// Inserts the rows that are new and adds exactly those to the sums.
pub(super) async fn insert(
    database: &Database,
    shard: i32,
    rows: &[UsageRow],
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS_PER_TRANSACTION) {
        in_transaction!(*database, |tx| try_insert(database, shard, rows, &mut tx))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct KnownDocument {
    #[serde(rename = "_id")]
    execution_id: Uuid,
}

async fn try_insert(
    database: &Database,
    shard: i32,
    rows: &[UsageRow],
    tx: &mut Transaction,
) -> Result<(), Failed> {
    let usages = database.collection(USAGES);
    let ids: Vec<Uuid> = rows.iter().map(|row| row.execution_id.key()).collect();
    let find = usages.find(doc! { "_id": { "$in": ids } }).projection(doc! { "_id": 1 });
    let mut found = find.session(tx.session()).await?;
    let mut known = HashSet::new();
    while let Some(row) = found.next(tx.session()).await {
        known.insert(parse::<KnownDocument>("usage row", &row?)?.execution_id.bytes());
    }
    let mut new = Vec::with_capacity(rows.len());
    let mut sums: HashMap<(FunctionId, i64, UserId), Sums> = HashMap::new();
    for row in rows {
        // Not twice in this batch, either.
        if !known.insert(*row.execution_id.as_bytes()) {
            continue;
        }
        let key = (row.function_id, row.timestamp.day(), row.user_id);
        let row = UsageDocument::from(row);
        sums.entry(key).or_default().add(&row);
        new.push(document(&row)?);
    }
    if new.is_empty() {
        return Ok(());
    }
    match usages.insert_many(new).session(tx.session()).await {
        // Another writer has them, too, and was faster.
        Err(error) if is_duplicate(&error) => return Err(Failed::Again),
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let updates = sums.into_iter().map(|((function_id, day, user_id), sum)| {
        let of = doc! { "functionId": function_id.key(), "day": day, "userId": user_id.key() };
        let mut key = of.clone();
        key.insert("shard", shard);
        doc! {
            "q": { "_id": key },
            "u": {
                "$setOnInsert": of,
                "$inc": sum.increments(),
            },
            "upsert": true,
        }
    });
    update_all(database, tx, USAGE_DAYS, updates.collect()).await
}

/// The single calls of a cut day in the shape of the sums.
fn cut_day(filter: &Document, times: &std::ops::Range<i64>) -> Document {
    let mut filter = filter.clone();
    filter.insert(
        "timestamp",
        doc! {
            "$gte": DateTime::from_millis(times.start),
            "$lt": DateTime::from_millis(times.end),
        },
    );
    let is = |condition: Document| doc! { "$cond": [condition, 1_i64, 0_i64] };
    let gb = doc! { "$divide": ["$memoryUsed", 1_024.0] };
    let seconds = doc! { "$divide": ["$duration", 1_000.0] };
    doc! { "$unionWith": { "coll": USAGES, "pipeline": [
        { "$match": filter },
        { "$project": {
            "_id": 0,
            "day": { "$literal": Timestamp(times.start).day() },
            "functionId": 1,
            "executed": { "$literal": 1_i64 },
            "errors": is(doc! { "$eq": ["$status", "error"] }),
            "cold": is(doc! { "$eq": ["$cold", true] }),
            "durationMs": "$duration",
            "cpuMs": "$cpu",
            "gbSeconds": { "$multiply": [gb, seconds] },
        } },
    ] } }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SumsDocument<K> {
    #[serde(rename = "_id")]
    key: K,
    executed: i64,
    errors: i64,
    cold: i64,
    duration_ms: f64,
    cpu_ms: f64,
    gb_seconds: f64,
}

/// The sums of a query by the field `key`, in its order.
async fn sums<K: serde::de::DeserializeOwned>(
    database: &Database,
    query: &UsageQuery,
    key: &str,
) -> Result<Vec<(K, UsageTotals)>, StoreError> {
    let span = Span::of(query);
    let filter = of(query.user_id, query.function_id);
    let mut whole_days = filter.clone();
    whole_days.insert("day", doc! { "$gte": span.days.start, "$lt": span.days.end });
    let sum = |field: &str| doc! { "$sum": format!("${field}") };
    let pipeline = [
        doc! { "$match": whole_days },
        doc! { "$project": {
            "_id": 0, "day": 1, "functionId": 1, "executed": 1, "errors": 1, "cold": 1,
            "durationMs": 1, "cpuMs": 1, "gbSeconds": 1,
        } },
        cut_day(&filter, &span.head),
        cut_day(&filter, &span.tail),
        doc! { "$group": {
            "_id": format!("${key}"),
            "executed": sum("executed"),
            "errors": sum("errors"),
            "cold": sum("cold"),
            "durationMs": sum("durationMs"),
            "cpuMs": sum("cpuMs"),
            "gbSeconds": sum("gbSeconds"),
        } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let rows: Vec<SumsDocument<K>> = aggregate(database, USAGE_DAYS, pipeline).await?;
    let sums = rows.into_iter().map(|row| {
        let totals = UsageTotals {
            executed: row.executed.unsigned_abs(),
            errors: row.errors.unsigned_abs(),
            cold: row.cold.unsigned_abs(),
            duration_ms: row.duration_ms,
            cpu_ms: row.cpu_ms,
            gb_seconds: row.gb_seconds,
        };
        (row.key, totals)
    });
    Ok(sums.collect())
}

async fn aggregate<T: serde::de::DeserializeOwned>(
    database: &Database,
    collection: &str,
    pipeline: impl IntoIterator<Item = Document>,
) -> Result<Vec<T>, StoreError> {
    let collection = database.collection(collection);
    let read = async {
        collection
            .aggregate(pipeline)
            .with_type::<RawDocumentBuf>()
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| Ok(parse("usage sum", &row)?))
            .try_collect()
            .await
    };
    database.bounded(read).await
}

pub(super) async fn totals(
    database: &Database,
    query: &UsageQuery,
) -> Result<UsageTotals, StoreError> {
    let days = sums::<i64>(database, query, "day").await?;
    Ok(days.into_iter().map(|(_, day)| day).sum())
}

pub(super) async fn by_day(
    database: &Database,
    query: &UsageQuery,
) -> Result<Vec<UsageDay>, StoreError> {
    let days = sums(database, query, "day").await?.into_iter();
    Ok(days.filter_map(|(day, totals)| Some(UsageDay { day: name_of_day(day)?, totals })).collect())
}

pub(super) async fn by_function(
    database: &Database,
    query: &UsageQuery,
) -> Result<Vec<UsageOfFunction>, StoreError> {
    let sums = sums::<Uuid>(database, query, "functionId").await?.into_iter();
    Ok(sums
        .map(|(id, totals)| UsageOfFunction { function_id: FunctionId::of(id), totals })
        .collect())
}

pub(super) async fn latency_by_day(
    database: &Database,
    query: &UsageQuery,
) -> Result<Vec<LatencyDay>, StoreError> {
    let (first, last) = days_of(query);
    let mut filter = of(query.user_id, query.function_id);
    filter.insert("day", doc! { "$gte": first, "$lte": last });
    let mut group = doc! { "_id": "$day" };
    for bucket in 0..LATENCY_BUCKETS {
        let field = Latency::field(bucket);
        let sum = doc! { "$sum": format!("$latency.{field}") };
        group.insert(field, sum);
    }
    let buckets: Vec<String> =
        (0..LATENCY_BUCKETS).map(|bucket| format!("${}", Latency::field(bucket))).collect();
    let pipeline = [
        doc! { "$match": filter },
        doc! { "$group": group },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$project": { "calls": buckets } },
    ];
    let rows: Vec<LatencyDocument> = aggregate(database, USAGE_DAYS, pipeline).await?;
    let days = rows.into_iter().filter_map(|row| {
        let mut latency = Latency::default();
        for (sum, calls) in latency.0.iter_mut().zip(row.calls) {
            *sum = calls.unsigned_abs();
        }
        Some(LatencyDay { day: name_of_day(row.day)?, latency })
    });
    Ok(days.collect())
}

#[derive(Deserialize)]
struct LatencyDocument {
    #[serde(rename = "_id")]
    day: i64,
    calls: Vec<i64>,
}

pub(super) async fn rows(
    database: &Database,
    query: &UsageQuery,
    limit: u32,
    cursor: Cursor,
) -> Result<Page<UsageRow>, StoreError> {
    let before = cursor.no_newer_than(query.to);
    let from = query.from.unwrap_or(Timestamp(i64::MIN));
    let limit = page_limit(limit);
    let mut filter = of(query.user_id, query.function_id);
    filter.extend(older("timestamp", before));
    filter.insert("timestamp", doc! { "$gte": date(from), "$lte": date(before.time) });
    let usages = database.collection(USAGES);
    let read = async {
        usages
            .find(filter)
            .sort(doc! { "timestamp": -1, "_id": -1 })
            .limit(i64::from(limit) + 1)
            .await?
            .map_err(Failed::Driver)
            .and_then(async |row| Ok(parse::<UsageDocument>("usage row", &row)?.into()))
            .try_collect()
            .await
    };
    let rows: Vec<UsageRow> = database.bounded(read).await?;
    let (items, next) = finish_page(rows, limit, |row: &UsageRow| Cursor {
        time: row.timestamp,
        id: *row.execution_id.as_bytes(),
    });
    Ok(Page { items, next })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatsDocument {
    #[serde(rename = "_id")]
    function_id: Uuid,
    executed: i64,
    errors: i64,
    duration_ms: f64,
    memory_mb: f64,
}

pub(super) async fn function_stats(
    database: &Database,
    functions: &[FunctionId],
) -> Result<Vec<(FunctionId, FunctionStats)>, StoreError> {
    let keys: Vec<Uuid> = functions.iter().map(Key::key).collect();
    let pipeline = [
        doc! { "$match": { "functionId": { "$in": keys } } },
        doc! { "$group": {
            "_id": "$functionId",
            "executed": { "$sum": "$executed" },
            "errors": { "$sum": "$errors" },
            "durationMs": { "$sum": "$durationMs" },
            "memoryMb": { "$sum": "$memoryMb" },
        } },
    ];
    let rows: Vec<StatsDocument> = aggregate(database, USAGE_DAYS, pipeline).await?;
    let known: HashMap<FunctionId, FunctionStats> = rows
        .into_iter()
        .map(|row| {
            #[allow(clippy::cast_precision_loss)]
            let calls = row.executed.max(1) as f64;
            let stats = FunctionStats {
                executed: row.executed.unsigned_abs(),
                errors: row.errors.unsigned_abs(),
                avg_latency: row.duration_ms / calls,
                avg_memory: row.memory_mb / calls,
            };
            (FunctionId::of(row.function_id), stats)
        })
        .collect();
    Ok(functions.iter().map(|id| (*id, known.get(id).cloned().unwrap_or_default())).collect())
}
