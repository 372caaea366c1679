//! Pages of all records, by their keys. What belongs together is read in one transaction.

use cloudserve_protocol::ids::{FunctionId, UserId};
use parking_lot::Mutex;
use rusqlite::{Connection, Row, params};

use super::calls::Walk;
use crate::sqlite::accounts::{api_key_where, read_api_key, read_user, user_where};
use crate::sqlite::columns::{optional_time, parsed, reading, storage_failed, time, visibility};
use crate::sqlite::records::{read_version, version_columns};
use crate::sqlite::statements::all;
use crate::sqlite::usage::day_columns;
use crate::sqlite::{audit, logs};
use crate::transfer::{
    Key, Kind, PAGE_BYTES, PAGE_ROWS, Record, RevokedToken, StoredFunction, UsageSums, at_rest,
};
use crate::{StoreError, Timestamp};

pub(super) fn page(
    c: &Connection,
    calls: &Mutex<Walk>,
    kind: Kind,
    after: Option<&Key>,
) -> Result<Vec<Record>, StoreError> {
    // Smaller than every id is the blob that is empty.
    let id = || after.map_or(Ok(Vec::new()), |key| key.id().map(Vec::from));
    match kind {
        Kind::RevokedTokens => tokens(c, after.map_or(Ok(""), Key::token)?),
        Kind::ApiKeys => {
            let sql = api_key_where!("id > ?1 ORDER BY id LIMIT ?2");
            all(c, sql, params![id()?, PAGE_ROWS], "API key", |row| {
                read_api_key(row).map(Record::ApiKey)
            })
        }
        Kind::Audit => all(c, AUDIT, params![id()?, PAGE_ROWS], "audit entry", |row| {
            audit::read_entry(row).map(Record::Audit)
        }),
        Kind::Functions => functions(c, &id()?),
        Kind::Users => {
            let sql = user_where!("id > ?1 ORDER BY id LIMIT ?2");
            all(c, sql, params![id()?, PAGE_ROWS], "user", |row| read_user(row).map(Record::User))
        }
        Kind::UsageDays => days(c, after.map(Key::day).transpose()?),
        Kind::Usages => calls.lock().page(c, after.map(Key::id).transpose()?),
        Kind::Logs => read_logs(c, &id()?),
    }
}

const AUDIT: &str = "SELECT id, user_id, actor, action, subject, detail, at
     FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2";

fn tokens(c: &Connection, after: &str) -> Result<Vec<Record>, StoreError> {
    let sql = "SELECT token_id, expires_at FROM revoked_tokens
               WHERE token_id > ?1 AND expires_at >= ?2 ORDER BY token_id LIMIT ?3";
    all(c, sql, params![after, Timestamp::now().0, PAGE_ROWS], "revoked token", |row| {
        let token = RevokedToken { token_id: row.get(0)?, expires_at: time(row, 1)? };
        Ok(Record::RevokedToken(token))
    })
}

const FUNCTIONS: &str = "SELECT id, user_id, name, latest_version, active_version,
            settled_version, visibility, created_at, updated_at, deployed_at
     FROM functions WHERE id > ?1 ORDER BY id LIMIT ?2";

const VERSIONS: &str = concat!(
    "SELECT ",
    version_columns!("v"),
    " FROM versions v WHERE v.function_id = ?1 ORDER BY v.version"
);

/// Where a version's source is among its columns: the one that may be large.
const SOURCE: usize = 4;

fn functions(c: &Connection, after: &[u8]) -> Result<Vec<Record>, StoreError> {
    let tx = c.unchecked_transaction().map_err(storage_failed)?;
    let mut functions = tx.prepare_cached(FUNCTIONS).map_err(storage_failed)?;
    let mut versions = tx.prepare_cached(VERSIONS).map_err(storage_failed)?;
    let mut found = functions.query(params![after, PAGE_ROWS]).map_err(storage_failed)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && records.len() < PAGE_ROWS as usize
        && let Some(row) = found.next().map_err(storage_failed)?
    {
        let function = read_function(row).map_err(reading("function"))?;
        let id = function.id;
        records.push(Record::Function(function));
        let mut of_one = versions.query([id.as_bytes()]).map_err(storage_failed)?;
        while let Some(row) = of_one.next().map_err(storage_failed)? {
            let source = row.get_ref(SOURCE).map_err(storage_failed)?;
            bytes += source.as_bytes().map_or(0, <[u8]>::len);
            let version = read_version(row, 0).map_err(reading("version"))?;
            records.push(Record::Version(at_rest(version)));
        }
    }
    Ok(records)
}

fn read_function(row: &Row<'_>) -> rusqlite::Result<StoredFunction> {
    Ok(StoredFunction {
        id: FunctionId::from_bytes(row.get(0)?),
        user_id: UserId::from_bytes(row.get(1)?),
        name: parsed(row, 2)?,
        latest_version: row.get(3)?,
        active_version: row.get(4)?,
        settled_version: row.get(5)?,
        visibility: visibility(row, 6)?,
        created_at: time(row, 7)?,
        updated_at: time(row, 8)?,
        deployed_at: optional_time(row, 9)?,
    })
}

/// But those of nothing, which say where calls are that were imported without their sums.
const DAYS: &str = concat!(
    "SELECT ",
    day_columns!(),
    " FROM usage_days WHERE (function_id, day, user_id) > (?1, ?2, ?3) AND executed > 0
     ORDER BY function_id, day, user_id LIMIT ?4"
);

const LATENCY: &str = "SELECT bucket, calls FROM usage_latency
     WHERE function_id = ?1 AND day = ?2 AND user_id = ?3";

fn days(
    c: &Connection,
    after: Option<([u8; 16], i64, [u8; 16])>,
) -> Result<Vec<Record>, StoreError> {
    let (function, day, user) = match &after {
        None => (&[][..], i64::MIN, &[][..]),
        Some((function, day, user)) => (&function[..], *day, &user[..]),
    };
    let tx = c.unchecked_transaction().map_err(storage_failed)?;
    let mut sums: Vec<UsageSums> =
        all(&tx, DAYS, params![function, day, user, PAGE_ROWS], "usage sum", read_sums)?;
    let mut query = tx.prepare_cached(LATENCY).map_err(storage_failed)?;
    for sum in &mut sums {
        let key = params![sum.function_id.as_bytes(), sum.day, sum.user_id.as_bytes()];
        let buckets: Vec<(usize, i64)> = query
            .query_map(key, |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(reading("usage sum"))?;
        for (bucket, calls) in buckets {
            let count = sum.latency.get_mut(bucket);
            *count.ok_or_else(|| StoreError::corrupt("usage sum", "there is no such bucket"))? =
                calls;
        }
    }
    Ok(sums.into_iter().map(Record::UsageDay).collect())
}

fn read_sums(row: &Row<'_>) -> rusqlite::Result<UsageSums> {
    Ok(UsageSums {
        function_id: FunctionId::from_bytes(row.get(0)?),
        day: row.get(1)?,
        user_id: UserId::from_bytes(row.get(2)?),
        executed: row.get(3)?,
        errors: row.get(4)?,
        cold: row.get(5)?,
        duration_ms: row.get(6)?,
        cpu_ms: row.get(7)?,
        memory_mb: row.get(8)?,
        gb_seconds: row.get(9)?,
        latency: Default::default(),
    })
}

/// By the index of the execution id.
const LOGS: &str = "SELECT function_id, execution_id, lines, duration_ms, memory_mb, failed,
            truncated, timestamp
     FROM logs WHERE execution_id > ?1 ORDER BY execution_id LIMIT ?2";

fn read_logs(c: &Connection, after: &[u8]) -> Result<Vec<Record>, StoreError> {
    let mut query = c.prepare_cached(LOGS).map_err(storage_failed)?;
    let mut found = query.query(params![after, PAGE_ROWS]).map_err(storage_failed)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && let Some(row) = found.next().map_err(storage_failed)?
    {
        let (log, length) = logs::read_log(row, 0).map_err(reading("log"))?;
        bytes += length;
        records.push(Record::Log(log));
    }
    Ok(records)
}
