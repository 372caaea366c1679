//! Usage rows and the running sums over them.
//!
//! Invariant: `usage_days` is the sum of `usage` by function, day (UTC) and account, and
//! `usage_latency` that by duration as well, both with the rows that have gone with age. All are
//! written in one transaction, and a row that was there already is added to none.
//!
//! Where there are rows there is a sum: rows are in the order of functions and time and in no other,
//! and those of an account are found by the functions and days of its sums. A row that was imported
//! without its sum has one of nothing, which is shown to nobody.
//!
//! A query for a span takes whole days from the sums and only the cut days at its two ends from
//! the rows, so its cost does not grow with the number of calls.

pub(super) mod calls;
pub(super) mod expiry;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cloudserve_protocol::ids::{FunctionId, UserId};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, Statement, params};

use super::columns::{reading, storage_failed};
use super::statements::all;
use super::telemetry::failed;
use crate::span::{Span, days_of, name_of_day};
use crate::telemetry::{
    FunctionStats, Latency, LatencyDay, UsageDay, UsageOfFunction, UsageQuery, UsageRow,
    UsageTotals, measured,
};
use crate::{StoreError, Timestamp};

/// The columns of `usage_days`, in the order in which its values are given and read.
macro_rules! day_columns {
    () => {
        "function_id, day, user_id, executed, errors, cold, duration_ms, cpu_ms, memory_mb, gb_seconds"
    };
}
pub(super) use day_columns;

#[derive(Default)]
struct Sums {
    totals: UsageTotals,
    memory_mb: f64,
    latency: Latency,
}

/// Inserts a row that is new. What tells it from others is all of its key, and not the execution id
/// alone: a call that is recorded again has its function and its time, too.
pub(super) const INSERT_ROW: &str =
    "INSERT INTO usage (execution_id, function_id, user_id, version, duration_ms, cpu_ms,
                        memory_mb, failed, code, cold, timestamp)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING";

/// By [`INSERT_ROW`]; how many were inserted.
pub(super) fn insert_row(insert: &mut Statement<'_>, row: &UsageRow) -> Result<usize, StoreError> {
    insert
        .execute(params![
            row.execution_id.as_bytes(),
            row.function_id.as_bytes(),
            row.user_id.as_bytes(),
            row.version,
            measured(row.duration_ms),
            measured(row.cpu_ms),
            measured(row.memory_mb),
            failed(row.status),
            row.code,
            row.cold,
            row.timestamp.0,
        ])
        .map_err(storage_failed)
}

/// Time after which whoever waits for this processor gets it. A batch takes milliseconds, and left
/// alone Linux looks only every few of them whether somebody else's turn has come: a call would wait
/// for that long. Not sooner: a yield gives a whole turn away.
const TURN: Duration = Duration::from_micros(500);

/// Since when this thread has its processor.
pub(super) struct Turn(Instant);

impl Turn {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Gives the processor to whoever waits for it, if it is time.
    pub(super) fn end_if_over(&mut self) {
        if self.0.elapsed() >= TURN {
            std::thread::yield_now();
            *self = Self::begin();
        }
    }
}

/// Rows between looks at the clock.
const ROWS_AT_ONCE: usize = 16;

/// Inserts the rows that are new and adds exactly those to the sums.
pub(super) fn insert(c: &Connection, rows: &[UsageRow]) -> Result<(), StoreError> {
    let mut insert = c.prepare_cached(INSERT_ROW).map_err(storage_failed)?;
    // One upsert per function and day instead of one per call.
    let mut sums: HashMap<(FunctionId, i64, UserId), Sums> = HashMap::new();
    let mut turn = Turn::begin();
    for (n, row) in rows.iter().enumerate() {
        if n % ROWS_AT_ONCE == 0 {
            turn.end_if_over();
        }
        let (duration_ms, cpu_ms) = (measured(row.duration_ms), measured(row.cpu_ms));
        let memory_mb = measured(row.memory_mb);
        let inserted = insert_row(&mut insert, row)?;
        if inserted == 1 {
            let key = (row.function_id, row.timestamp.day(), row.user_id);
            let sum = sums.entry(key).or_default();
            sum.totals.executed += 1;
            sum.totals.errors += u64::from(failed(row.status));
            sum.totals.cold += u64::from(row.cold);
            sum.totals.duration_ms += duration_ms;
            sum.totals.cpu_ms += cpu_ms;
            sum.totals.gb_seconds += memory_mb / 1_024.0 * (duration_ms / 1_000.0);
            sum.memory_mb += memory_mb;
            sum.latency.0[Latency::bucket(duration_ms)] += 1;
        }
    }
    let mut add = c
        .prepare_cached(concat!(
            "INSERT INTO usage_days (",
            day_columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT DO UPDATE SET
                 executed = executed + excluded.executed,
                 errors = errors + excluded.errors,
                 cold = cold + excluded.cold,
                 duration_ms = duration_ms + excluded.duration_ms,
                 cpu_ms = cpu_ms + excluded.cpu_ms,
                 memory_mb = memory_mb + excluded.memory_mb,
                 gb_seconds = gb_seconds + excluded.gb_seconds",
        ))
        .map_err(storage_failed)?;
    let mut add_latency = c
        .prepare_cached(
            "INSERT INTO usage_latency (function_id, day, user_id, bucket, calls)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        )
        .map_err(storage_failed)?;
    for ((function_id, day, user_id), Sums { totals, memory_mb, latency }) in sums {
        add.execute(params![
            function_id.as_bytes(),
            day,
            user_id.as_bytes(),
            count(totals.executed),
            count(totals.errors),
            count(totals.cold),
            totals.duration_ms,
            totals.cpu_ms,
            memory_mb,
            totals.gb_seconds,
        ])
        .map_err(storage_failed)?;
        for (bucket, calls) in latency.0.into_iter().enumerate().filter(|(_, calls)| *calls > 0) {
            let (function_id, user_id) = (function_id.as_bytes(), user_id.as_bytes());
            add_latency
                .execute(params![function_id, day, user_id, bucket, count(calls)])
                .map_err(storage_failed)?;
        }
    }
    Ok(())
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

macro_rules! cut_day {
    ($condition:literal, $day:literal, $times:literal) => {
        concat!(
            " UNION ALL
                 SELECT d.day, u.function_id, 1, u.failed, u.cold, u.duration_ms, u.cpu_ms,
                        u.memory_mb / 1024.0 * (u.duration_ms / 1000.0)
                 FROM usage_days AS d CROSS JOIN usage AS u
                 WHERE ",
            $condition,
            " AND d.day = ",
            $day,
            " AND u.function_id = d.function_id AND u.user_id = d.user_id AND ",
            $times
        )
    };
}

macro_rules! sums_by {
    ($key:literal, $condition:literal) => {
        concat!(
            "SELECT ",
            $key,
            ", sum(executed), sum(errors), sum(cold), sum(duration_ms), sum(cpu_ms),
                    sum(gb_seconds)
             FROM (
                 SELECT d.day, d.function_id, d.executed, d.errors, d.cold, d.duration_ms,
                        d.cpu_ms, d.gb_seconds
                 FROM usage_days AS d
                 WHERE ",
            $condition,
            " AND d.day >= ?3 AND d.day < ?4 AND d.executed > 0",
            cut_day!($condition, "?5", "u.timestamp >= ?6 AND u.timestamp < ?7"),
            cut_day!($condition, "?8", "u.timestamp >= ?9 AND u.timestamp < ?10"),
            "
             )
             GROUP BY ",
            $key,
            " ORDER BY ",
            $key
        )
    };
}

pub(super) const SUMS_OF_USER: &str = sums_by!("day", "d.user_id = ?1 AND ?2 IS NULL");
/// The plus keeps SQLite on the key, which begins with the function: the narrower one.
pub(super) const SUMS_OF_FUNCTION: &str = sums_by!("day", "+d.user_id = ?1 AND d.function_id = ?2");
pub(super) const SUMS_BY_FUNCTION: &str =
    sums_by!("function_id", "d.user_id = ?1 AND d.function_id = coalesce(?2, d.function_id)");

fn days(c: &Connection, query: &UsageQuery) -> Result<Vec<(i64, UsageTotals)>, StoreError> {
    let sql = match query.function_id {
        None => SUMS_OF_USER,
        Some(_) => SUMS_OF_FUNCTION,
    };
    sums(c, sql, query)
}

/// The sums of a query by the first column of `sql`.
fn sums<K: FromSql>(
    c: &Connection,
    sql: &'static str,
    query: &UsageQuery,
) -> Result<Vec<(K, UsageTotals)>, StoreError> {
    let Span { days, head, tail } = Span::of(query);
    all(
        c,
        sql,
        params![
            query.user_id.as_bytes(),
            query.function_id.map(|id| *id.as_bytes()),
            days.start,
            days.end,
            Timestamp(head.start).day(),
            head.start,
            head.end,
            Timestamp(tail.start).day(),
            tail.start,
            tail.end,
        ],
        "usage sum",
        |row| Ok((row.get(0)?, read_totals(row)?)),
    )
}

fn read_totals(row: &Row<'_>) -> rusqlite::Result<UsageTotals> {
    Ok(UsageTotals {
        executed: row.get::<_, i64>(1)?.unsigned_abs(),
        errors: row.get::<_, i64>(2)?.unsigned_abs(),
        cold: row.get::<_, i64>(3)?.unsigned_abs(),
        duration_ms: row.get(4)?,
        cpu_ms: row.get(5)?,
        gb_seconds: row.get(6)?,
    })
}

pub(super) fn totals(c: &Connection, query: &UsageQuery) -> Result<UsageTotals, StoreError> {
    Ok(days(c, query)?.into_iter().map(|(_, day)| day).sum())
}

pub(super) fn by_day(c: &Connection, query: &UsageQuery) -> Result<Vec<UsageDay>, StoreError> {
    let named = days(c, query)?
        .into_iter()
        .filter_map(|(day, totals)| Some(UsageDay { day: name_of_day(day)?, totals }));
    Ok(named.collect())
}

pub(super) fn by_function(
    c: &Connection,
    query: &UsageQuery,
) -> Result<Vec<UsageOfFunction>, StoreError> {
    let sums = sums(c, SUMS_BY_FUNCTION, query)?
        .into_iter()
        .map(|(id, totals)| UsageOfFunction { function_id: FunctionId::from_bytes(id), totals });
    Ok(sums.collect())
}

pub(super) const LATENCY_OF_USER: &str = "SELECT day, bucket, sum(calls) FROM usage_latency
     WHERE user_id = ?1 AND ?2 IS NULL AND day >= ?3 AND day <= ?4
     GROUP BY day, bucket ORDER BY day";
pub(super) const LATENCY_OF_FUNCTION: &str = "SELECT day, bucket, sum(calls) FROM usage_latency
     WHERE +user_id = ?1 AND function_id = ?2 AND day >= ?3 AND day <= ?4
     GROUP BY day, bucket ORDER BY day";

pub(super) fn latency_by_day(
    c: &Connection,
    query: &UsageQuery,
) -> Result<Vec<LatencyDay>, StoreError> {
    let sql = match query.function_id {
        None => LATENCY_OF_USER,
        Some(_) => LATENCY_OF_FUNCTION,
    };
    let (first, last) = days_of(query);
    let function_id = query.function_id.map(|id| *id.as_bytes());
    let rows: Vec<(i64, usize, i64)> = all(
        c,
        sql,
        params![query.user_id.as_bytes(), function_id, first, last],
        "latency",
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let mut days: Vec<(i64, Latency)> = Vec::new();
    for (day, bucket, calls) in rows {
        if days.last().is_none_or(|(last, _)| *last != day) {
            days.push((day, Latency::default()));
        }
        if let Some((_, latency)) = days.last_mut()
            && let Some(count) = latency.0.get_mut(bucket)
        {
            *count += calls.unsigned_abs();
        }
    }
    let named = days
        .into_iter()
        .filter_map(|(day, latency)| Some(LatencyDay { day: name_of_day(day)?, latency }));
    Ok(named.collect())
}

pub(super) fn function_stats(c: &Connection, id: FunctionId) -> Result<FunctionStats, StoreError> {
    c.prepare_cached(
        "SELECT coalesce(sum(executed), 0), coalesce(sum(errors), 0),
                coalesce(sum(duration_ms) / sum(executed), 0.0),
                coalesce(sum(memory_mb) / sum(executed), 0.0)
         FROM usage_days WHERE function_id = ?1",
    )
    .and_then(|mut query| {
        query.query_row([id.as_bytes()], |row| {
            Ok(FunctionStats {
                executed: row.get::<_, i64>(0)?.unsigned_abs(),
                errors: row.get::<_, i64>(1)?.unsigned_abs(),
                avg_latency: row.get(2)?,
                avg_memory: row.get(3)?,
            })
        })
    })
    .map_err(reading("usage sum"))
}
