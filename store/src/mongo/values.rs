//! Values of the domain in documents, and what the driver's errors mean.

use cloudserve_protocol::ids::{ApiKeyId, AuditId, ExecutionId, FunctionId, UserId};
use mongodb::bson::{
    Bson, DateTime, Document, RawDocumentBuf, Uuid, deserialize_from_slice, doc,
    serialize_to_raw_document_buf,
};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cursor::Cursor;
use crate::{StoreError, Timestamp};

/// An identifier as a UUID, which the server compares byte by byte as we do.
pub(super) trait Key {
    fn key(&self) -> Uuid;
    fn of(key: Uuid) -> Self;
}

macro_rules! keys {
    ($($id:ident),*) => {$(
        impl Key for $id {
            fn key(&self) -> Uuid {
                Uuid::from_bytes(*self.as_bytes())
            }

            fn of(key: Uuid) -> Self {
                Self::from_bytes(key.bytes())
            }
        }
    )*};
}

keys!(UserId, ApiKeyId, AuditId, FunctionId, ExecutionId);

pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.0)
}

pub(super) fn time(date: DateTime) -> Timestamp {
    Timestamp(date.timestamp_millis())
}

/// The condition for documents behind a place in a list that is ordered by this time and `_id`,
/// newest first. The first half is what an index can be entered with.
pub(super) fn older(field: &str, than: Cursor) -> Document {
    let (time, id) = (date(than.time), Uuid::from_bytes(than.id));
    doc! {
        field: { "$lte": time },
        "$or": [{ field: { "$lt": time } }, { "_id": { "$lt": id } }],
    }
}

/// So many bytes, as the server counts.
pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A value of the domain as a field of a document.
pub(super) fn field<T: Serialize>(value: &T) -> Result<Bson, StoreError> {
    mongodb::bson::serialize_to_bson(value).map_err(StoreError::unavailable)
}

/// A record as a document.
pub(super) fn document<T: Serialize>(record: &T) -> Result<RawDocumentBuf, StoreError> {
    serialize_to_raw_document_buf(record).map_err(StoreError::unavailable)
}

/// A document as a record of this kind.
pub(super) fn parse<T: DeserializeOwned>(
    kind: &'static str,
    document: &RawDocumentBuf,
) -> Result<T, StoreError> {
    deserialize_from_slice(document.as_bytes())
        .map_err(|error: mongodb::bson::error::Error| StoreError::corrupt(kind, error))
}

/// Whether the server refused a command with this code.
pub(super) fn has_code(error: &Error, code: i32) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if command.code == code)
}

const DUPLICATE_KEY: i32 = 11_000;

/// Whether a unique index refused a write.
pub(super) fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        ErrorKind::InsertMany(many) => {
            many.write_errors.iter().flatten().any(|write| write.code == DUPLICATE_KEY)
        }
        _ => false,
    }
}

/// Whether every write that failed was one of a record that is there already.
pub(super) fn is_only_duplicates(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::InsertMany(many) => {
            many.write_concern_error.is_none()
                && many.write_errors.iter().flatten().all(|write| write.code == DUPLICATE_KEY)
        }
        _ => false,
    }
}
