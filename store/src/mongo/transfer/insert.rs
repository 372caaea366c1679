//! Records of another installation, each as it was there, if it is not here yet.
//!
//! Acknowledged by a majority, logs too: what was imported is not lost with a primary.

use mongodb::bson::RawDocumentBuf;

use super::read::TokenDocument;
use crate::StoreError;
use crate::function::{Version, version_bytes};
use crate::mongo::accounts::{ApiKeyDocument, UserDocument};
use crate::mongo::audit::EntryDocument;
use crate::mongo::database::{Database, insert_absent};
use crate::mongo::documents::{FunctionDocument, VersionDocument, VersionKey, sealed};
use crate::mongo::logs::LogDocument;
use crate::mongo::schema::{
    API_KEYS, AUDIT, FUNCTIONS, LOGS, REVOKED_TOKENS, USAGES, USERS, VERSIONS,
};
use crate::mongo::usage::UsageDocument;
use crate::mongo::values::{Key, date, document, size};
use crate::transfer::{Record, StoredFunction};

/// Any kind but sums. Records of one kind may be of two collections.
pub(super) async fn all(database: &Database, records: Vec<Record>) -> Result<(), StoreError> {
    let mut collections: Vec<(&'static str, Vec<RawDocumentBuf>)> = Vec::new();
    for record in records {
        let (collection, row) = stored(record)?;
        match collections.iter_mut().find(|(name, _)| *name == collection) {
            Some((_, rows)) => rows.push(row),
            None => collections.push((collection, vec![row])),
        }
    }
    for (collection, rows) in collections {
        insert_absent(database, &database.collection(collection), rows).await?;
    }
    Ok(())
}

/// A record as a document, and where it belongs.
fn stored(record: Record) -> Result<(&'static str, RawDocumentBuf), StoreError> {
    Ok(match record {
        Record::RevokedToken(token) => {
            let expires_at = date(token.expires_at);
            let row = TokenDocument { token_id: token.token_id, expires_at };
            (REVOKED_TOKENS, document(&row)?)
        }
        Record::ApiKey(key) => (API_KEYS, document(&ApiKeyDocument::from(key))?),
        Record::Audit(entry) => (AUDIT, document(&EntryDocument::of(entry)?)?),
        Record::Function(function) => (FUNCTIONS, document(&function_document(function))?),
        Record::Version(version) => (VERSIONS, document(&version_document(version))?),
        Record::User(user) => (USERS, document(&UserDocument::from(user))?),
        Record::Usage(row) => (USAGES, document(&UsageDocument::from(&row))?),
        Record::Log(row) => (LOGS, document(&LogDocument::from(row))?),
        Record::UsageDay(_) => return Err(StoreError::BadCursor),
    })
}

fn function_document(function: StoredFunction) -> FunctionDocument {
    FunctionDocument {
        id: function.id.key(),
        user: function.user_id.key(),
        name: function.name,
        latest_version: function.latest_version,
        active_version: function.active_version,
        settled_version: function.settled_version,
        visibility: function.visibility,
        created_at: date(function.created_at),
        updated_at: date(function.updated_at),
        deployed_at: function.deployed_at.map(date),
    }
}

fn version_document(version: Version) -> VersionDocument {
    let bytes = version_bytes(&version.source, &version.env, version.built.as_ref());
    VersionDocument {
        id: VersionKey { function_id: version.function_id.key(), version: version.version },
        status: version.status,
        error: version.error,
        source: version.source,
        source_hash: version.source_hash,
        env: sealed(&version.env),
        limits: version.limits,
        built: version.built,
        created_at: date(version.created_at),
        queued_at: version.status.is_under_way().then(|| date(version.created_at)),
        queued_by: None,
        makes_public: version.makes_public,
        attempts: 0,
        bytes: size(bytes),
    }
}
