//! Columns: how values of the domain are written and read, and what SQLite's errors mean.

use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{ErrorCode, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::function::{DeployStatus, Visibility};
use crate::{StoreError, Timestamp};

/// What an error of a statement means when no constraint is expected to fail.
pub(super) fn storage_failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::corrupt("database file", error)
        }
        _ => StoreError::unavailable(error),
    }
}

/// What an error means while records of this kind are read.
pub(super) fn reading(record: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::corrupt(record, error),
        error => storage_failed(error),
    }
}

/// What an error of an insert means whose parent row may be gone.
pub(super) fn inserting(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error().map(|e| e.extended_code) {
        Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => StoreError::Missing,
        Some(
            rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
        ) => StoreError::Conflict,
        _ => storage_failed(error),
    }
}

fn unreadable<E>(column: usize, kind: Type) -> impl FnOnce(E) -> rusqlite::Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| rusqlite::Error::FromSqlConversionFailure(column, kind, source.into())
}

/// A text column that holds a checked text.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str().map_err(unreadable(column, Type::Text))?;
    text.parse().map_err(unreadable(column, Type::Text))
}

/// A text column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(unreadable(column, Type::Text))?;
    serde_json::from_str(text).map_err(unreadable(column, Type::Text))
}

/// A text column that holds JSON, or nothing.
pub(super) fn optional_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

/// The JSON text of a value of the domain.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::unavailable)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp)
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

/// The stored text of a status.
pub(super) const fn status_text(status: DeployStatus) -> &'static str {
    match status {
        DeployStatus::Pending => "pending",
        DeployStatus::Deploying => "deploying",
        DeployStatus::Active => "active",
        DeployStatus::Failed => "failed",
        DeployStatus::Superseded => "superseded",
    }
}

pub(super) fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<DeployStatus> {
    Ok(match row.get_ref(column)?.as_str().map_err(unreadable(column, Type::Text))? {
        "pending" => DeployStatus::Pending,
        "deploying" => DeployStatus::Deploying,
        "active" => DeployStatus::Active,
        "failed" => DeployStatus::Failed,
        "superseded" => DeployStatus::Superseded,
        other => return Err(unreadable(column, Type::Text)(format!("unknown status {other:?}"))),
    })
}

/// The stored text of a visibility.
pub(super) const fn visibility_text(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Private => "private",
        Visibility::Public => "public",
    }
}

pub(super) fn visibility(row: &Row<'_>, column: usize) -> rusqlite::Result<Visibility> {
    Ok(match row.get_ref(column)?.as_str().map_err(unreadable(column, Type::Text))? {
        "private" => Visibility::Private,
        "public" => Visibility::Public,
        other => {
            return Err(unreadable(column, Type::Text)(format!("unknown visibility {other:?}")));
        }
    })
}
