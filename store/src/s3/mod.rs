//! Objects in an S3 bucket.
//!
//! Invariant: an object under its key is complete. Large ones arrive in parts and appear when all
//! of them have; what is named by its content (bundles, dependency trees) is written only if the
//! key is free, and an object that is there already is believed only after it was read.

#![allow(clippy::large_futures, reason = "the client's; one per request over the network")]

mod read;
mod transfer;
mod write;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, Object, ObjectIdentifier,
};
use bytes::Bytes;
use cloudserve_protocol::artifact::{
    ArtifactError, ArtifactKey, ArtifactStore, DEPENDENCIES, ListedObject,
};
use cloudserve_protocol::ids::FunctionId;
use futures::future::{Ready, ready};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::object_key::{failed, text_of};
use write::Content;

/// Attempts of one request, the first included.
const ATTEMPTS: u32 = 3;
/// Size of the pieces of [`ArtifactStore::stream`].
const PIECE_BYTES: usize = 256 * 1024;
/// The region of AWS where buckets are made that ask for none, and the only one that may not be asked
/// for.
const DEFAULT_REGION: &str = "us-east-1";
/// The object that says what the bucket holds. No key of an artifact looks like it.
const FORMAT_KEY: &str = "cloudserve.json";
const PRODUCT: &str = "cloudserve";
/// The newest layout of objects this release knows.
const FORMAT: i64 = 1;
/// More than the object under [`FORMAT_KEY`] ever has.
const FORMAT_BYTES: u64 = 4_096;

/// When checksums are sent and checked besides those of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumMode {
    /// Whenever S3 can: CRC on every object.
    #[default]
    Supported,
    /// Only where S3 demands them: for stores that refuse others.
    Required,
}

/// How S3, or what speaks like it, is used.
#[derive(Clone)]
pub struct S3Options {
    /// Where it is; `None` for AWS itself.
    pub endpoint: Option<String>,
    /// The region; stores other than AWS take any.
    pub region: String,
    /// The bucket; made if there is none.
    pub bucket: String,
    /// The access key.
    pub access_key: String,
    /// The secret key. Because of it this has no `Debug`.
    pub secret_key: String,
    /// When checksums are used.
    pub checksums: ChecksumMode,
    /// How long connecting may take.
    pub connect_timeout_ms: u32,
    /// How long the server may be silent.
    pub read_timeout_ms: u32,
    /// How long one request may take, its body included, retries not.
    pub attempt_timeout_ms: u32,
    /// Files larger than this are sent in parts of this size. At least 5 MiB.
    pub part_bytes: u64,
    /// Parts of one file under way at the same time.
    pub parts_in_parallel: usize,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: DEFAULT_REGION.to_owned(),
            bucket: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
            checksums: ChecksumMode::default(),
            connect_timeout_ms: 3_000,
            read_timeout_ms: 15_000,
            attempt_timeout_ms: 60_000,
            part_bytes: 8 * 1024 * 1024,
            parts_in_parallel: 4,
        }
    }
}

/// [`ArtifactStore`] over a bucket. Cheap to clone.
#[derive(Clone)]
pub(crate) struct S3Objects {
    client: Client,
    bucket: String,
    part_bytes: u64,
    parts_in_parallel: usize,
    read_timeout: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatDocument {
    product: String,
    object_format: i64,
}

/// The status of an answer that is an error, if there was an answer.
fn status_of<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

impl S3Objects {
    /// Connects, makes the bucket if there is none, and checks that its objects are ours.
    pub(crate) async fn open(options: &S3Options) -> Result<Self, OpenError> {
        let client = Client::from_conf(config(options));
        let store = Self {
            client,
            bucket: options.bucket.clone(),
            part_bytes: options.part_bytes.max(5 * 1024 * 1024),
            parts_in_parallel: options.parts_in_parallel.max(1),
            read_timeout: Duration::from_millis(options.read_timeout_ms.into()),
        };
        let endpoint = options.endpoint.as_deref().unwrap_or("AWS");
        let place = format!("{endpoint} (bucket {})", options.bucket);
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Unreachable {
            server: "S3",
            place: place.clone(),
            source,
        };
        store.provide_bucket(location(options)).await.map_err(&unusable)?;
        let format = store.provide_format().await.map_err(&unusable)?;
        let format = format.filter(|format| format.product == PRODUCT);
        let format =
            format.ok_or_else(|| OpenError::ForeignBucket { name: options.bucket.clone() })?;
        if format.object_format > FORMAT {
            return Err(OpenError::DatabaseTooNew {
                name: format!("bucket {}", options.bucket),
                found: format.object_format,
                known: FORMAT,
            });
        }
        Ok(store)
    }

    async fn provide_bucket(
        &self,
        location: Option<CreateBucketConfiguration>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if status_of(&error) == Some(404) => {
                let create = self.client.create_bucket().bucket(&self.bucket);
                match create.set_create_bucket_configuration(location).send().await {
                    // Another process was faster.
                    Err(error) if status_of(&error) == Some(409) => Ok(()),
                    Err(error) => Err(error.into()),
                    Ok(_) => Ok(()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the bucket says that it holds; an empty one is made ours. `None`: something else.
    async fn provide_format(
        &self,
    ) -> Result<Option<FormatDocument>, Box<dyn std::error::Error + Send + Sync>> {
        let stored = self.read_format().await?;
        if stored.is_some() {
            return Ok(stored);
        }
        let any = self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).send().await?;
        if any.contents.is_some_and(|objects| !objects.is_empty()) {
            // Not empty and yet ours: another process has begun meanwhile, and this is the first thing
            // it wrote.
            return self.read_format().await;
        }
        let format = FormatDocument { product: PRODUCT.to_owned(), object_format: FORMAT };
        let bytes = Bytes::from(serde_json::to_vec(&format)?);
        self.write(FORMAT_KEY, &Content::Bytes(bytes), false).await?;
        Ok(Some(format))
    }

    async fn read_format(
        &self,
    ) -> Result<Option<FormatDocument>, Box<dyn std::error::Error + Send + Sync>> {
        match self.read_whole(FORMAT_KEY, FORMAT_BYTES).await {
            Ok(found) => Ok(Some(serde_json::from_slice(&found)?)),
            Err(ArtifactError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn config(options: &S3Options) -> aws_sdk_s3::Config {
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(ms(options.connect_timeout_ms))
        .read_timeout(ms(options.read_timeout_ms))
        .operation_attempt_timeout(ms(options.attempt_timeout_ms))
        .operation_timeout(ms(options.attempt_timeout_ms).saturating_mul(ATTEMPTS))
        .build();
    let (request, response) = match options.checksums {
        ChecksumMode::Supported => {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        }
        ChecksumMode::Required => {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        }
    };
    let credentials = Credentials::new(
        &options.access_key,
        &options.secret_key,
        None,
        None,
        "cloudserve configuration",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(options.region.clone()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts)
        .request_checksum_calculation(request)
        .response_checksum_validation(response);
    match &options.endpoint {
        // Buckets as host names need DNS that only AWS has.
        Some(endpoint) => config.endpoint_url(endpoint).force_path_style(true).build(),
        None => config.build(),
    }
}

/// Where a bucket is to be made. AWS wants it said; other stores know where they are, and not all of
/// them know the names of regions.
fn location(options: &S3Options) -> Option<CreateBucketConfiguration> {
    let region = options.region.as_str();
    let is_said = options.endpoint.is_none() && region != DEFAULT_REGION;
    is_said.then(|| {
        let region = BucketLocationConstraint::from(region);
        CreateBucketConfiguration::builder().location_constraint(region).build()
    })
}

/// Whether all that is ever written under a key is equal.
fn is_immutable(key: &ArtifactKey) -> bool {
    matches!(key, ArtifactKey::Bundle { .. } | ArtifactKey::DependencyTree { .. })
}

#[async_trait]
impl ArtifactStore for S3Objects {
    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<(), ArtifactError> {
        let text = text_of("write", key)?;
        self.write(&text, &Content::Bytes(bytes), is_immutable(key)).await
    }

    async fn put_file(&self, key: &ArtifactKey, file: &Path) -> Result<(), ArtifactError> {
        let text = text_of("write", key)?;
        let content = Content::of_file(file).await.map_err(failed("write", &text))?;
        self.write(&text, &content, is_immutable(key)).await
    }

    async fn get(&self, key: &ArtifactKey, max_bytes: u64) -> Result<Bytes, ArtifactError> {
        self.read_whole(&text_of("read", key)?, max_bytes).await
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        self.read_pieces(text_of("read", key)?).await
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        let key = text_of("read", key)?;
        Ok(self.length_of(&key).await?.is_some())
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        let key = text_of("delete", key)?;
        let delete = self.client.delete_object().bucket(&self.bucket).key(&key);
        delete.send().await.map(drop).map_err(failed("delete", &key))
    }

    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError> {
        let prefix = format!("{function}/");
        loop {
            let listed = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&prefix)
                .send()
                .await
                .map_err(failed("list", &prefix))?;
            // A store whose listings lag must not be asked for ever.
            let keys: HashSet<_> =
                listed.contents.into_iter().flatten().filter_map(|object| object.key).collect();
            if keys.is_empty() {
                return Ok(());
            }
            self.delete_all(&prefix, keys).await?;
            if listed.is_truncated != Some(true) {
                return Ok(());
            }
        }
    }

    fn list(
        &self,
        function: FunctionId,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        let found = self.walk(format!("{function}/"), None);
        found
            .try_filter_map(move |of| listed(ArtifactKey::of_function(function, &of.0), of))
            .boxed()
    }

    fn list_dependencies(
        &self,
        after: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        let found = self.walk(DEPENDENCIES.to_owned(), after.map(ToString::to_string));
        found.try_filter_map(|of| listed(ArtifactKey::of_dependencies(&of.0), of)).boxed()
    }
}

/// An object in a listing, if it is one of ours.
fn listed(
    key: Option<ArtifactKey>,
    (text, object): (String, Object),
) -> Ready<Result<Option<ListedObject>, ArtifactError>> {
    let listed = key.zip(object.last_modified).map(|(key, time)| {
        let stored_at = SystemTime::try_from(time).map_err(failed("list", &text));
        stored_at.map(|stored_at| ListedObject { key, stored_at })
    });
    ready(listed.transpose())
}

/// Objects that a store did not delete.
#[derive(Debug, thiserror::Error)]
#[error("{count} objects were not deleted; the first says {code}")]
struct NotDeleted {
    count: usize,
    code: String,
}

impl S3Objects {
    async fn delete_all(&self, prefix: &str, keys: HashSet<String>) -> Result<(), ArtifactError> {
        let objects = keys
            .into_iter()
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("delete", prefix))?;
        let batch = Delete::builder()
            .set_objects(Some(objects))
            .quiet(true)
            .build()
            .map_err(failed("delete", prefix))?;
        let done = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(batch)
            .send()
            .await
            .map_err(failed("delete", prefix))?;
        match done.errors() {
            [] => Ok(()),
            [first, ..] => Err(failed("delete", prefix)(NotDeleted {
                count: done.errors().len(),
                code: first.code().unwrap_or("nothing").to_owned(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_aws_are_made_in_the_region_that_is_set() {
        let made_in = |region: &str, endpoint: Option<&str>| {
            let options = S3Options {
                region: region.to_owned(),
                endpoint: endpoint.map(str::to_owned),
                ..S3Options::default()
            };
            location(&options).map(|said| said.location_constraint().unwrap().as_str().to_owned())
        };
        assert_eq!(made_in("eu-central-1", None).as_deref(), Some("eu-central-1"));
        // One that the client does not know yet.
        assert_eq!(made_in("xx-north-9", None).as_deref(), Some("xx-north-9"));
        assert_eq!(made_in("us-east-1", None), None);
        assert_eq!(made_in("eu-central-1", Some("http://127.0.0.1:9000")), None);
    }
}
