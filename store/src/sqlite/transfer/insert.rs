//! Records of another installation, each as it was there, if it is not here yet.

use rusqlite::{Connection, params};

use crate::StoreError;
use crate::function::{Version, version_bytes};
use crate::sqlite::columns::{status_text, storage_failed, to_json, visibility_text};
use crate::sqlite::statements::insert_new;
use crate::sqlite::usage::day_columns;
use crate::sqlite::{accounts, audit, logs, usage};
use crate::telemetry::{LogRow, UsageRow, measured};
use crate::transfer::{Record, RevokedToken, StoredFunction, UsageSums};

/// In one transaction, the caller's.
pub(super) fn all(c: &Connection, records: &[Record]) -> Result<(), StoreError> {
    records.iter().try_for_each(|record| match record {
        Record::RevokedToken(token) => revoked_token(c, token),
        Record::ApiKey(key) => accounts::insert_api_key(c, key).map(drop),
        Record::Audit(entry) => audit::insert(c, entry).map(drop),
        Record::Function(function) => stored_function(c, function),
        Record::Version(of) => version(c, of),
        Record::User(user) => accounts::insert_user(c, user).map(drop),
        Record::UsageDay(sums) => usage_day(c, sums),
        Record::Usage(row) => usage_row(c, row),
        Record::Log(row) => log(c, row),
    })
}

fn revoked_token(c: &Connection, token: &RevokedToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO revoked_tokens (token_id, expires_at) VALUES (?1, ?2)
               ON CONFLICT DO NOTHING";
    insert_new(c, sql, params![token.token_id, token.expires_at.0]).map(drop)
}

fn stored_function(c: &Connection, function: &StoredFunction) -> Result<(), StoreError> {
    let sql = "INSERT INTO functions
                   (id, user_id, name, latest_version, active_version, settled_version,
                    visibility, created_at, updated_at, deployed_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
    let values = params![
        function.id.as_bytes(),
        function.user_id.as_bytes(),
        function.name.as_str(),
        function.latest_version,
        function.active_version,
        function.settled_version,
        visibility_text(function.visibility),
        function.created_at.0,
        function.updated_at.0,
        function.deployed_at.map(|t| t.0),
    ];
    insert_new(c, sql, values).map(drop)
}

fn version(c: &Connection, version: &Version) -> Result<(), StoreError> {
    let sql = "INSERT INTO versions
                   (function_id, version, status, created_at, source_hash, limits, built, error,
                    env, source, makes_public, bytes)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING";
    let values = params![
        version.function_id.as_bytes(),
        version.version,
        status_text(version.status),
        version.created_at.0,
        version.source_hash.as_str(),
        to_json(&version.limits)?,
        version.built.as_ref().map(to_json).transpose()?,
        version.error.as_ref().map(to_json).transpose()?,
        version.env.0,
        to_json(&version.source)?,
        version.makes_public,
        version_bytes(&version.source, &version.env, version.built.as_ref()),
    ];
    insert_new(c, sql, values).map(drop)
}

fn usage_day(c: &Connection, sums: &UsageSums) -> Result<(), StoreError> {
    let sql = concat!(
        "INSERT INTO usage_days (",
        day_columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET
             executed = excluded.executed, errors = excluded.errors, cold = excluded.cold,
             duration_ms = excluded.duration_ms, cpu_ms = excluded.cpu_ms,
             memory_mb = excluded.memory_mb, gb_seconds = excluded.gb_seconds
         WHERE executed = 0"
    );
    let (function, user) = (sums.function_id.as_bytes(), sums.user_id.as_bytes());
    let values = params![
        function,
        sums.day,
        user,
        sums.executed,
        sums.errors,
        sums.cold,
        measured(sums.duration_ms),
        measured(sums.cpu_ms),
        measured(sums.memory_mb),
        measured(sums.gb_seconds),
    ];
    if !insert_new(c, sql, values)? {
        return Ok(());
    }
    let sql = "INSERT INTO usage_latency (function_id, day, user_id, bucket, calls)
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    for (bucket, calls) in sums.latency.iter().enumerate().filter(|(_, calls)| **calls > 0) {
        insert_new(c, sql, params![function, sums.day, user, bucket, calls])?;
    }
    Ok(())
}

/// What is exported beside a running server may have a call and not its sum: it gets one of nothing,
/// by which it is found.
fn usage_row(c: &Connection, row: &UsageRow) -> Result<(), StoreError> {
    let mut insert = c.prepare_cached(usage::INSERT_ROW).map_err(storage_failed)?;
    usage::insert_row(&mut insert, row)?;
    let sql = concat!(
        "INSERT INTO usage_days (",
        day_columns!(),
        ") VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
    );
    let (function, user) = (row.function_id.as_bytes(), row.user_id.as_bytes());
    insert_new(c, sql, params![function, row.timestamp.day(), user]).map(drop)
}

fn log(c: &Connection, row: &LogRow) -> Result<(), StoreError> {
    logs::insert(c, row, &to_json(&row.lines)?)
}
