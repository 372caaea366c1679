//! The installation of many processes: MongoDB and S3.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::artifact::{
    ArtifactError, ArtifactKey, ArtifactStore, DEPENDENCIES, ListedObject,
};
use cloudserve_protocol::ids::FunctionId;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};

use crate::mongo::{self, MongoOptions};
use crate::object_key::failed;
use crate::s3::{S3Objects, S3Options};
use crate::transfer::Transfer;
use crate::{OpenError, Stores};

/// Opens an installation on servers. Any number of processes may have it open.
///
/// Must be called inside a Tokio runtime, which also follows changes, and brings the database to the
/// ages in the options, for as long as a clone of the returned stores lives.
pub async fn open_production(mongo: &MongoOptions, s3: &S3Options) -> Result<Stores, OpenError> {
    // At the same time, so that the first error is not the only one for long.
    let (records, objects) = tokio::join!(mongo::open(mongo), Box::pin(S3Objects::open(s3)));
    Ok(records?.with_objects(Arc::new(objects?)))
}

/// Opens the records alone, for a role that never touches objects: every operation on one is an
/// error. As [`open_production`] otherwise.
pub async fn open_production_records(mongo: &MongoOptions) -> Result<Stores, OpenError> {
    Ok(mongo::open(mongo).await?.with_objects(Arc::new(NoObjects)))
}

/// Opens the objects alone, for a role that never touches records.
pub async fn open_production_objects(s3: &S3Options) -> Result<Arc<dyn ArtifactStore>, OpenError> {
    Ok(Arc::new(Box::pin(S3Objects::open(s3)).await?))
}

/// Opens an installation on servers to read all of it, beside whoever serves it. Its ages stay as they
/// are, whatever the options say.
pub async fn open_production_transfer(
    mongo: &MongoOptions,
    s3: &S3Options,
) -> Result<Transfer, OpenError> {
    open_transfer(mongo, s3, false).await
}

/// Opens an installation on servers to import into it, also where an import was cut off. Its ages stay
/// as they are, too.
pub async fn open_production_import(
    mongo: &MongoOptions,
    s3: &S3Options,
) -> Result<Transfer, OpenError> {
    open_transfer(mongo, s3, true).await
}

async fn open_transfer(
    mongo: &MongoOptions,
    s3: &S3Options,
    importing: bool,
) -> Result<Transfer, OpenError> {
    let records = mongo::open_transfer(mongo, importing);
    let (records, objects) = tokio::join!(records, Box::pin(S3Objects::open(s3)));
    let temporary = std::env::temp_dir();
    Ok(Transfer { records: records?, objects: Arc::new(objects?), temporary })
}

/// What a role has that may not have objects.
struct NoObjects;

/// A role asked for an object that may not.
#[derive(Debug, thiserror::Error)]
#[error("this role has no object storage")]
struct NotOfThisRole;

impl NoObjects {
    fn refuse<T>(operation: &'static str, key: &dyn std::fmt::Display) -> Result<T, ArtifactError> {
        Err(failed(operation, &key.to_string())(NotOfThisRole))
    }
}

#[async_trait]
impl ArtifactStore for NoObjects {
    async fn put(&self, key: &ArtifactKey, _: Bytes) -> Result<(), ArtifactError> {
        Self::refuse("write", key)
    }

    async fn put_file(&self, key: &ArtifactKey, _: &Path) -> Result<(), ArtifactError> {
        Self::refuse("write", key)
    }

    async fn get(&self, key: &ArtifactKey, _: u64) -> Result<Bytes, ArtifactError> {
        Self::refuse("read", key)
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        Self::refuse("read", key)
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        Self::refuse("read", key)
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        Self::refuse("delete", key)
    }

    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError> {
        Self::refuse("delete", &function)
    }

    fn list(
        &self,
        function: FunctionId,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        stream::once(ready(Self::refuse("list", &function))).boxed()
    }

    fn list_dependencies(
        &self,
        _: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        stream::once(ready(Self::refuse("list", &DEPENDENCIES))).boxed()
    }
}
