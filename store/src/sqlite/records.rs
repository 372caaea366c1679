//! How functions and versions are read: columns, the queries over them, and what their rows mean.

use std::collections::BTreeMap;

use cloudserve_protocol::ids::{FunctionId, UserId};
use rusqlite::{Connection, Params, Row};

use super::columns::{json, optional_json, optional_time, parsed, status, time, visibility};
use super::statements::one;
use crate::StoreError;
use crate::function::{
    Function, FunctionRecord, Listed, ListedSource, Route, SealedEnv, Served, Version, only,
};

/// Columns of a function; `f` is its row and `l` that of its newest version.
macro_rules! function_columns {
    () => {
        "f.id, f.user_id, f.name, l.status, l.error, f.latest_version, f.active_version,
         f.visibility, f.created_at, f.updated_at, f.deployed_at"
    };
}
pub(super) use function_columns;

pub(super) const FUNCTION_COLUMNS: usize = 11;

pub(super) fn read_function(row: &Row<'_>) -> rusqlite::Result<Function> {
    Ok(Function {
        id: FunctionId::from_bytes(row.get(0)?),
        user_id: UserId::from_bytes(row.get(1)?),
        name: parsed(row, 2)?,
        status: status(row, 3)?,
        deploy_error: optional_json(row, 4)?,
        latest_version: row.get(5)?,
        active_version: row.get(6)?,
        visibility: visibility(row, 7)?,
        created_at: time(row, 8)?,
        updated_at: time(row, 9)?,
        deployed_at: optional_time(row, 10)?,
    })
}

/// Columns of a version, with another expression for its source if one is given.
macro_rules! version_columns {
    ($table:literal) => {
        version_columns!($table, $table, ".source")
    };
    ($table:literal, $($source:literal),+) => {
        concat!(
            $table,
            ".function_id, ",
            $table,
            ".version, ",
            $table,
            ".status, ",
            $table,
            ".error, ",
            $($source,)+
            ", ",
            $table,
            ".source_hash, ",
            $table,
            ".env, ",
            $table,
            ".limits, ",
            $table,
            ".built, ",
            $table,
            ".created_at, ",
            $table,
            ".makes_public"
        )
    };
}
pub(super) use version_columns;

pub(super) const VERSION_COLUMNS: usize = 11;

/// Reads the version whose columns begin at `at`.
pub(super) fn read_version(row: &Row<'_>, at: usize) -> rusqlite::Result<Version> {
    Ok(Version {
        function_id: FunctionId::from_bytes(row.get(at)?),
        version: row.get(at + 1)?,
        status: status(row, at + 2)?,
        error: optional_json(row, at + 3)?,
        source: json(row, at + 4)?,
        source_hash: parsed(row, at + 5)?,
        env: SealedEnv(row.get(at + 6)?),
        limits: json(row, at + 7)?,
        built: optional_json(row, at + 8)?,
        created_at: time(row, at + 9)?,
        makes_public: row.get(at + 10)?,
    })
}

/// A query for [`read_record`]: one statement, so that function and versions are of one moment.
macro_rules! record_where {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            function_columns!(),
            ", ",
            version_columns!("l"),
            ", ",
            version_columns!("a"),
            " FROM functions f
             JOIN versions l ON l.function_id = f.id AND l.version = f.latest_version
             LEFT JOIN versions a ON a.function_id = f.id AND a.version = f.active_version
             WHERE ",
            $condition
        )
    };
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<FunctionRecord> {
    let function = read_function(row)?;
    let latest = read_version(row, FUNCTION_COLUMNS)?;
    let active = match function.active_version {
        None => None,
        Some(version) if version == latest.version => Some(latest.clone()),
        Some(_) => Some(read_version(row, FUNCTION_COLUMNS + VERSION_COLUMNS)?),
    };
    Ok(FunctionRecord { function, latest, active })
}

pub(super) fn record(
    c: &Connection,
    sql: &'static str,
    key: impl Params,
) -> Result<Option<FunctionRecord>, StoreError> {
    one(c, sql, key, "function", read_record)
}

pub(super) const RECORD_BY_ID: &str = record_where!("f.id = ?1 AND f.user_id = ?2");

pub(super) const RECORD_BY_NAME: &str = record_where!("f.user_id = ?1 AND f.name = ?2");

/// Of a source, which may hold a large lock file, only what a list shows leaves SQLite. What is no JSON
/// comes as an empty text, which is none either.
pub(super) const LIST: &str = concat!(
    "SELECT ",
    function_columns!(),
    ", iif(json_valid(l.source), json_extract(l.source, '$.storedVersion', '$.dependencies',
            '$.external', '$.files[0].path', '$.files[1].path'), ''),
        l.source_hash, l.env, l.limits, l.built, a.version, a.built
     FROM functions f
     JOIN versions l ON l.function_id = f.id AND l.version = f.latest_version
     LEFT JOIN versions a ON a.function_id = f.id AND a.version = f.active_version
     WHERE f.user_id = ?1 AND (f.created_at, f.id) < (?2, ?3)
     ORDER BY f.created_at DESC, f.id DESC LIMIT ?4"
);

pub(super) fn read_listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    const AT: usize = FUNCTION_COLUMNS;
    type Extracted = (u32, BTreeMap<String, String>, Vec<String>, Option<String>, Option<String>);
    let (stored_version, dependencies, external, first, second): Extracted = json(row, AT)?;
    let only_file = only([first, second].into_iter().flatten());
    let function = read_function(row)?;
    let mut built = optional_json(row, AT + 4)?;
    if function.active_version.is_some() {
        // It is there, or the record is damaged.
        row.get::<_, u32>(AT + 5)?;
        if built.is_none() {
            built = optional_json(row, AT + 6)?;
        }
    }
    Ok(Listed {
        function,
        source: ListedSource { stored_version, only_file, dependencies, external },
        source_hash: parsed(row, AT + 1)?,
        env: SealedEnv(row.get(AT + 2)?),
        limits: json(row, AT + 3)?,
        built,
    })
}

/// Without lock files, as [`LIST`].
pub(super) const VERSIONS: &str = concat!(
    "SELECT ",
    version_columns!("v", "iif(json_valid(v.source), json_remove(v.source, '$.packageLock'), '')"),
    " FROM functions f JOIN versions v ON v.function_id = f.id
     WHERE f.id = ?1 AND f.user_id = ?2 ORDER BY v.version DESC LIMIT ?3"
);

pub(super) const ROUTE: &str =
    "SELECT f.id, f.user_id, u.user_name, f.name, f.visibility, l.status, u.quota,
            f.active_version, a.env, a.limits, a.built
     FROM users u
     JOIN functions f ON f.user_id = u.id
     JOIN versions l ON l.function_id = f.id AND l.version = f.latest_version
     LEFT JOIN versions a ON a.function_id = f.id AND a.version = f.active_version
     WHERE u.user_name = ?1 AND f.name = ?2";

pub(super) fn read_route(row: &Row<'_>) -> rusqlite::Result<Route> {
    let active = match row.get::<_, Option<u32>>(7)? {
        None => None,
        Some(version) => Some(Served {
            version,
            env: SealedEnv(row.get(8)?),
            limits: json(row, 9)?,
            built: optional_json(row, 10)?,
        }),
    };
    Ok(Route {
        function_id: FunctionId::from_bytes(row.get(0)?),
        owner_id: UserId::from_bytes(row.get(1)?),
        owner_name: parsed(row, 2)?,
        owner_quota: json(row, 6)?,
        function_name: parsed(row, 3)?,
        visibility: visibility(row, 4)?,
        status: status(row, 5)?,
        active,
    })
}
