//! Records of another installation, each as it was there, if it is not here yet.

use rusqlite::{Connection, Params, params};

use crate::StoreError;
use crate::account::{ApiKey, AuditEntry, User};
use crate::function::Version;
use crate::sqlite::columns::{inserting, status_text, storage_failed, to_json, visibility_text};
use crate::sqlite::telemetry::measured;
use crate::sqlite::{logs, usage};
use crate::telemetry::{LogRow, UsageRow};
use crate::transfer::{Record, RevokedToken, StoredFunction, UsageSums};

/// In one transaction, the caller's.
pub(super) fn all(c: &Connection, records: &[Record]) -> Result<(), StoreError> {
    records.iter().try_for_each(|record| match record {
        Record::RevokedToken(token) => revoked_token(c, token),
        Record::ApiKey(key) => api_key(c, key),
        Record::Audit(entry) => audit_entry(c, entry),
        Record::Function(function) => stored_function(c, function),
        Record::Version(of) => version(c, of),
        Record::User(account) => user(c, account),
        Record::UsageDay(sums) => usage_day(c, sums),
        Record::Usage(row) => usage_row(c, row),
        Record::Log(row) => log(c, row),
    })
}

fn insert(c: &Connection, sql: &str, values: impl Params) -> Result<usize, StoreError> {
    c.prepare_cached(sql).and_then(|mut insert| insert.execute(values)).map_err(inserting)
}

fn user(c: &Connection, user: &User) -> Result<(), StoreError> {
    let sql = "INSERT INTO users
                   (id, full_name, user_name, email, password_hash, quota, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    let values = params![
        user.id.as_bytes(),
        user.full_name,
        user.user_name.as_str(),
        user.email,
        user.password_hash,
        to_json(&user.quota)?,
        user.created_at.0,
    ];
    insert(c, sql, values).map(drop)
}

fn api_key(c: &Connection, key: &ApiKey) -> Result<(), StoreError> {
    let sql = "INSERT INTO api_keys
                   (id, user_id, name, key_hash, prefix, scopes, functions, expires_at,
                    last_used_at, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
    let values = params![
        key.id.as_bytes(),
        key.user_id.as_bytes(),
        key.name,
        key.key_hash,
        key.prefix,
        to_json(&key.scopes)?,
        to_json(&key.functions)?,
        key.expires_at.map(|t| t.0),
        key.last_used_at.map(|t| t.0),
        key.created_at.0,
    ];
    insert(c, sql, values).map(drop)
}

fn revoked_token(c: &Connection, token: &RevokedToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO revoked_tokens (token_id, expires_at) VALUES (?1, ?2)
               ON CONFLICT DO NOTHING";
    insert(c, sql, params![token.token_id, token.expires_at.0]).map(drop)
}

fn audit_entry(c: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (id, user_id, actor, action, subject, detail, at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    let values = params![
        entry.id.as_bytes(),
        entry.user_id.as_bytes(),
        to_json(&entry.actor)?,
        entry.action,
        entry.subject,
        entry.detail,
        entry.at.0,
    ];
    insert(c, sql, values).map(drop)
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
    insert(c, sql, values).map(drop)
}

fn version(c: &Connection, version: &Version) -> Result<(), StoreError> {
    let sql = "INSERT INTO versions
                   (function_id, version, status, created_at, source_hash, limits, built, error,
                    env, source)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
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
    ];
    insert(c, sql, values).map(drop)
}

fn usage_day(c: &Connection, sums: &UsageSums) -> Result<(), StoreError> {
    let sql = "INSERT INTO usage_days (function_id, day, user_id, executed, errors, cold,
                                       duration_ms, cpu_ms, memory_mb, gb_seconds)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
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
    if insert(c, sql, values)? == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO usage_latency (function_id, day, user_id, bucket, calls)
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    for (bucket, calls) in sums.latency.iter().enumerate().filter(|(_, calls)| **calls > 0) {
        insert(c, sql, params![function, sums.day, user, bucket, calls])?;
    }
    Ok(())
}

fn usage_row(c: &Connection, row: &UsageRow) -> Result<(), StoreError> {
    let mut insert = c.prepare_cached(usage::INSERT_ROW).map_err(storage_failed)?;
    usage::insert_row(&mut insert, row).map(drop)
}

fn log(c: &Connection, row: &LogRow) -> Result<(), StoreError> {
    let lines = to_json(&row.lines)?;
    logs::insert(c, &[(row.clone(), lines)])
}
