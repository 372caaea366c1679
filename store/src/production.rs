//! The installation of many processes: MongoDB and S3.

use std::sync::Arc;

use crate::mongo::{self, MongoOptions};
use crate::s3::{S3Objects, S3Options};
use crate::{OpenError, Stores};

/// Opens an installation on servers. Any number of processes may have it open.
///
/// Must be called inside a Tokio runtime, which also follows changes for as long as a clone of
/// the returned stores lives.
pub async fn open_production(mongo: &MongoOptions, s3: &S3Options) -> Result<Stores, OpenError> {
    // At the same time, so that the first error is not the only one for long.
    let (records, objects) = tokio::join!(mongo::open(mongo), Box::pin(S3Objects::open(s3)));
    let records = records?;
    Ok(Stores {
        accounts: records.accounts,
        functions: records.functions,
        telemetry: records.telemetry,
        artifacts: Arc::new(objects?),
        changes: records.changes,
    })
}
