//! All objects of a bucket, in the order of their keys.

use std::path::Path;

use async_trait::async_trait;
use aws_sdk_s3::types::Object;
use bytes::Bytes;
use cloudserve_protocol::artifact::ArtifactError;
use futures::stream::{BoxStream, StreamExt, TryStreamExt, iter, try_unfold};

use super::{Content, FORMAT_KEY, S3Objects};
use crate::object_key::failed;
use crate::transfer::{ObjectTransfer, StoredObject, check_key};

/// Where a listing is.
enum Place {
    Begin,
    After(String),
    End,
}

impl S3Objects {
    /// The next page of the objects whose keys begin so, and where it ends.
    async fn list_page(
        &self,
        prefix: &str,
        place: &Place,
    ) -> Result<(Vec<(String, Object)>, Place), ArtifactError> {
        let mut list = self.client.list_objects_v2().bucket(&self.bucket);
        if !prefix.is_empty() {
            list = list.prefix(prefix);
        }
        if let Place::After(key) = place {
            list = list.start_after(key);
        }
        let listed = list.send().await.map_err(failed("list", prefix))?;
        let objects = listed.contents.unwrap_or_default().into_iter();
        let objects: Vec<(String, Object)> =
            objects.filter_map(|mut object| object.key.take().map(|key| (key, object))).collect();
        // By the last key and not by a token, which a store may take back after a while.
        let next = match objects.last() {
            Some((last, _)) if listed.is_truncated == Some(true) => Place::After(last.clone()),
            _ => Place::End,
        };
        Ok((objects, next))
    }

    /// The objects whose keys begin so and come after this one, in the order of these, asked for page by
    /// page.
    pub(super) fn walk(
        &self,
        prefix: String,
        after: Option<String>,
    ) -> BoxStream<'static, Result<(String, Object), ArtifactError>> {
        let begin = (self.clone(), prefix, after.map_or(Place::Begin, Place::After));
        let pages = try_unfold(begin, |(store, prefix, place)| async move {
            if matches!(place, Place::End) {
                return Ok(None);
            }
            let (objects, next) = store.list_page(&prefix, &place).await?;
            Ok(Some((objects, (store, prefix, next))))
        });
        pages
            .map_ok(|objects| iter(objects.into_iter().map(Ok::<_, ArtifactError>)))
            .try_flatten()
            .boxed()
    }
}

#[async_trait]
impl ObjectTransfer for S3Objects {
    fn list(&self) -> BoxStream<'static, Result<StoredObject, ArtifactError>> {
        self.walk(String::new(), None)
            .map_ok(|(key, object)| StoredObject {
                key,
                bytes: object.size.unwrap_or(0).unsigned_abs(),
            })
            .try_filter(|object| {
                // Some stores list folders, too.
                let is_ours = object.key != FORMAT_KEY && !object.key.ends_with('/');
                std::future::ready(is_ours)
            })
            .boxed()
    }

    async fn open(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        check_key("read", key)?;
        self.read_pieces(key.to_owned()).await
    }

    async fn put(&self, key: &str, file: &Path) -> Result<(), ArtifactError> {
        check_key("write", key)?;
        let content = Content::of_file(file).await.map_err(failed("write", key))?;
        self.write(key, &content, true).await
    }
}
