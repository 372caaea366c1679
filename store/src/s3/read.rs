//! Reading: whole, in pieces, and on from where a connection broke.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_protocol::fault::Chain;
use futures::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};

use super::{PIECE_BYTES, S3Objects, status_of};
use crate::object_key::failed;

/// How often a body that broke off is taken up again.
const RESUMPTIONS: u32 = 3;

/// A body that is shorter than the answer said, or silent.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the body ended after {received} of {length} bytes")]
    Short { received: u64, length: u64 },
    #[error("the body is longer than {length} bytes")]
    Long { length: u64 },
    #[error("the server fell silent in the middle of the body")]
    Silent,
    #[error("the answer does not say how long the object is")]
    NoLength,
}

/// An object that is being read.
struct Reading {
    store: S3Objects,
    key: String,
    body: ByteStream,
    /// What makes sure that the rest is of the same object.
    etag: Option<String>,
    length: u64,
    received: u64,
    resumptions: u32,
    /// Received and not yet handed out.
    rest: Bytes,
}

impl S3Objects {
    /// How long an object is; `None` if there is none.
    pub(super) async fn length_of(&self, key: &str) -> Result<Option<u64>, ArtifactError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(head) => Ok(Some(head.content_length().unwrap_or(0).unsigned_abs())),
            Err(error) if status_of(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("read", key)(error)),
        }
    }

    async fn request(
        &self,
        key: &str,
        rest: Option<(u64, Option<String>)>,
    ) -> Result<GetObjectOutput, ArtifactError> {
        let mut get = self.client.get_object().bucket(&self.bucket).key(key);
        if let Some((from, etag)) = rest {
            get = get.range(format!("bytes={from}-")).set_if_match(etag);
        }
        get.send().await.map_err(|error| match status_of(&error) {
            Some(404) => ArtifactError::NotFound { key: key.to_owned() },
            _ => failed("read", key)(error),
        })
    }

    async fn begin_reading(&self, key: String) -> Result<Reading, ArtifactError> {
        let answer = self.request(&key, None).await?;
        let length = answer.content_length().ok_or(Broken::NoLength);
        let length = length.map_err(failed("read", &key))?.unsigned_abs();
        Ok(Reading {
            store: self.clone(),
            key,
            etag: answer.e_tag,
            body: answer.body,
            length,
            received: 0,
            resumptions: 0,
            rest: Bytes::new(),
        })
    }

    pub(super) async fn read_whole(
        &self,
        key: &str,
        max_bytes: u64,
    ) -> Result<Bytes, ArtifactError> {
        let reading = self.begin_reading(key.to_owned()).await?;
        if reading.length > max_bytes {
            return Err(ArtifactError::TooLarge { key: key.to_owned(), max_bytes });
        }
        let mut whole = Vec::with_capacity(usize::try_from(reading.length).unwrap_or(0));
        let mut pieces = pieces(reading);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    pub(super) async fn read_pieces(
        &self,
        key: String,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        Ok(pieces(self.begin_reading(key).await?))
    }
}

fn pieces(reading: Reading) -> BoxStream<'static, Result<Bytes, ArtifactError>> {
    try_unfold(reading, |mut reading| async move {
        let piece = reading.next_piece().await?;
        Ok(piece.map(|piece| (piece, reading)))
    })
    .boxed()
}

impl Reading {
    async fn next_piece(&mut self) -> Result<Option<Bytes>, ArtifactError> {
        while self.rest.is_empty() {
            match self.next_chunk().await {
                Ok(Some(chunk)) => self.rest = chunk,
                Ok(None) => return Ok(None),
                Err(error) if self.resumptions == RESUMPTIONS => {
                    return Err(failed("read", &self.key)(error));
                }
                Err(error) => {
                    tracing::warn!(
                        key = self.key,
                        received = self.received,
                        length = self.length,
                        error = %Chain(&*error),
                        "reading an object broke off; going on from there"
                    );
                    self.resumptions += 1;
                    let rest = Some((self.received, self.etag.clone()));
                    self.body = self.store.request(&self.key, rest).await?.body;
                }
            }
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(PIECE_BYTES))))
    }

    async fn next_chunk(
        &mut self,
    ) -> Result<Option<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let next = tokio::time::timeout(self.store.read_timeout, self.body.next());
        match next.await.map_err(|_| Broken::Silent)? {
            None if self.received < self.length => {
                Err(Broken::Short { received: self.received, length: self.length }.into())
            }
            None => Ok(None),
            // A checksum that does not fit is found at the end; the whole is read again then.
            Some(Err(error)) => Err(error.into()),
            Some(Ok(chunk)) => {
                self.received += chunk.len() as u64;
                if self.received > self.length {
                    return Err(Broken::Long { length: self.length }.into());
                }
                Ok(Some(chunk))
            }
        }
    }
}
