//! Writing: at once, in parts, and only if the key is free.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::abort_multipart_upload::builders::AbortMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadError;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_protocol::fault::Chain;
use futures::stream::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::{S3Objects, status_of};
use crate::object_key::failed;

/// What is written.
pub(super) enum Content {
    Bytes(Bytes),
    File { file: Arc<File>, length: u64 },
}

/// How a write that wanted a free key ended.
enum Written {
    Done,
    /// There is an object under the key already.
    Taken,
}

/// What a store answers that does not know conditional writes.
const NOT_IMPLEMENTED: u16 = 501;
const PRECONDITION_FAILED: u16 = 412;
/// Two conditional writes at the same time.
const CONFLICT: u16 = 409;

impl Content {
    pub(super) async fn of_file(path: &Path) -> io::Result<Self> {
        let path: PathBuf = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok(Self::File { file: Arc::new(file), length })
        })
        .await
        .map_err(io::Error::other)?
    }

    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// Some of it, in memory.
    async fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let at = |n: u64| usize::try_from(n).map_err(io::Error::other);
                Ok(bytes.slice(at(from)?..at(from + length)?))
            }
            Self::File { file, .. } => {
                let file = file.clone();
                tokio::task::spawn_blocking(move || {
                    let mut part = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                    file.read_exact_at(&mut part, from)?;
                    Ok(part.into())
                })
                .await
                .map_err(io::Error::other)?
            }
        }
    }

    async fn sha256(&self, step: u64) -> io::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut from = 0;
        while from < self.length() {
            let part = self.read(from, step.min(self.length() - from)).await?;
            hasher.update(&part);
            from += part.len() as u64;
        }
        Ok(hasher.finalize().into())
    }
}

impl S3Objects {
    /// Writes an object; one that is immutable only if it is not there yet, or not whole.
    pub(super) async fn write(
        &self,
        key: &str,
        content: &Content,
        immutable: bool,
    ) -> Result<(), ArtifactError> {
        if !immutable {
            return self.send(key, content, false).await.map(drop);
        }
        // Not sent in vain when it is large.
        let is_large = content.length() > self.part_bytes;
        if is_large && self.holds(key, content).await? {
            return Ok(());
        }
        match self.send(key, content, true).await? {
            Written::Done => Ok(()),
            Written::Taken if self.holds(key, content).await? => Ok(()),
            // What is there is damaged, and this is how it is mended.
            Written::Taken => {
                tracing::warn!(key, "an object differs from what its key says; replacing it");
                self.send(key, content, false).await.map(drop)
            }
        }
    }

    /// Whether the object under this key is this, byte by byte.
    async fn holds(&self, key: &str, content: &Content) -> Result<bool, ArtifactError> {
        if self.length_of(key).await? != Some(content.length()) {
            return Ok(false);
        }
        let mut pieces = match self.read_pieces(key.to_owned()).await {
            Err(ArtifactError::NotFound { .. }) => return Ok(false),
            pieces => pieces?,
        };
        let mut hasher = Sha256::new();
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(&piece);
        }
        let stored: [u8; 32] = hasher.finalize().into();
        let wanted = content.sha256(self.part_bytes).await.map_err(failed("read", key))?;
        Ok(stored == wanted)
    }

    async fn send(
        &self,
        key: &str,
        content: &Content,
        only_if_free: bool,
    ) -> Result<Written, ArtifactError> {
        if content.length() > self.part_bytes {
            return self.send_parts(key, content, only_if_free).await;
        }
        let bytes = content.read(0, content.length()).await.map_err(failed("write", key))?;
        let put = |condition: Option<String>| {
            self.client
                .put_object()
                .bucket(&self.bucket)
                .key(key)
                .set_if_none_match(condition)
                .body(bytes.clone().into())
                .send()
        };
        put_under(key, only_if_free, put).await
    }

    async fn send_parts(
        &self,
        key: &str,
        content: &Content,
        only_if_free: bool,
    ) -> Result<Written, ArtifactError> {
        let unfinished = self.begin_parts(key).await?;
        let sent = self.send_all(key, content, &unfinished.upload_id, only_if_free).await;
        unfinished.end(matches!(sent, Ok(Written::Done))).await;
        sent
    }

    /// In a task of its own: who gives up before the server has answered would leave an upload that
    /// nobody knows.
    async fn begin_parts(&self, key: &str) -> Result<Unfinished, ArtifactError> {
        let create = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key);
        let begun = tokio::spawn({
            let key = key.to_owned();
            async move {
                let upload_id = create.send().await?.upload_id.unwrap_or_default();
                let abort = Some(abort.upload_id(&upload_id));
                Ok::<_, SdkError<CreateMultipartUploadError>>(Unfinished { key, upload_id, abort })
            }
        });
        begun.await.map_err(failed("write", key))?.map_err(failed("write", key))
    }

    async fn send_all(
        &self,
        key: &str,
        content: &Content,
        upload_id: &str,
        only_if_free: bool,
    ) -> Result<Written, ArtifactError> {
        let parts = (1..).zip((0..content.length()).step_by(self.step()));
        let mut parts: Vec<CompletedPart> = futures::stream::iter(parts)
            .map(|(number, from)| self.send_part(key, content, upload_id, number, from))
            .buffer_unordered(self.parts_in_parallel)
            .try_collect()
            .await?;
        parts.sort_by_key(CompletedPart::part_number);
        let complete = |condition: Option<String>| {
            let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.clone())).build();
            self.client
                .complete_multipart_upload()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(upload_id)
                .multipart_upload(parts)
                .set_if_none_match(condition)
                .send()
        };
        put_under(key, only_if_free, complete).await
    }

    fn step(&self) -> usize {
        usize::try_from(self.part_bytes).unwrap_or(usize::MAX)
    }

    async fn send_part(
        &self,
        key: &str,
        content: &Content,
        upload_id: &str,
        number: i32,
        from: u64,
    ) -> Result<CompletedPart, ArtifactError> {
        let length = self.part_bytes.min(content.length() - from);
        let bytes = content.read(from, length).await.map_err(failed("write", key))?;
        let sent = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id)
            .part_number(number)
            .body(bytes.into())
            .send()
            .await
            .map_err(failed("write", key))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }
}

/// An upload in parts that has not ended. Who drops it like that gives it up: there is no object, and its
/// parts would stay.
struct Unfinished {
    key: String,
    upload_id: String,
    abort: Option<AbortMultipartUploadFluentBuilder>,
}

impl Unfinished {
    async fn end(mut self, is_whole: bool) {
        if !is_whole && let Some(abort) = self.abort.clone() {
            remove_parts(&self.key, abort).await;
        }
        self.abort = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(abort) = self.abort.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let key = std::mem::take(&mut self.key);
            runtime.spawn(async move { remove_parts(&key, abort).await });
        }
    }
}

async fn remove_parts(key: &str, abort: AbortMultipartUploadFluentBuilder) {
    // Parts that stay cost space, no more; a rule of the bucket removes them (`docs/OPERATIONS.md`).
    if let Err(error) = abort.send().await {
        tracing::warn!(key, error = %Chain(&error), "parts of an unfinished object remain");
    }
}

/// Sends what makes an object appear under a key, given what is to be matched by none that is there.
async fn put_under<T, E, F>(
    key: &str,
    only_if_free: bool,
    send: impl Fn(Option<String>) -> F,
) -> Result<Written, ArtifactError>
where
    F: Future<Output = Result<T, SdkError<E>>>,
    SdkError<E>: std::error::Error + Send + Sync + 'static,
{
    let mut sent = send(only_if_free.then(|| "*".to_owned())).await;
    if only_if_free && matches!(&sent, Err(e) if status_of(e) == Some(NOT_IMPLEMENTED)) {
        sent = send(None).await;
    }
    match sent {
        Ok(_) => Ok(Written::Done),
        Err(error)
            if only_if_free
                && matches!(status_of(&error), Some(PRECONDITION_FAILED | CONFLICT)) =>
        {
            Ok(Written::Taken)
        }
        Err(error) => Err(failed("write", key)(error)),
    }
}
