//! All objects of a directory, in the order of their keys.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::artifact::ArtifactError;
use futures::stream::{BoxStream, StreamExt, TryStreamExt, iter, try_unfold};

use super::{Directory, LocalObjects, TEMPORARY, is_absence, open_object, pieces};
use crate::object_key::failed;
use crate::transfer::{ObjectTransfer, StoredObject, check_key};

/// Objects found in one step off the async threads.
const STEP: usize = 256;

/// A name that is no text.
#[derive(Debug, thiserror::Error)]
#[error("a file among the objects has a name that is not Unicode")]
struct NotUnicode;

/// A name in a directory that is being walked.
enum Found {
    /// The key so far, with a slash at its end.
    Directory(String),
    Object(String),
}

impl Found {
    fn key(&self) -> &str {
        let (Self::Directory(key) | Self::Object(key)) = self;
        key
    }
}

/// What is left to walk: the rest of each directory on the way down.
struct Walk {
    directory: Arc<Directory>,
    after: Option<String>,
    rest: Vec<std::vec::IntoIter<Found>>,
}

impl Walk {
    fn begin(directory: Arc<Directory>, prefix: String, after: Option<String>) -> Self {
        let root = vec![Found::Directory(prefix)].into_iter();
        Self { directory, after, rest: vec![root] }
    }

    /// Whether it comes after where the walk begins, or leads there.
    fn is_ahead(&self, found: &Found) -> bool {
        let Some(after) = self.after.as_deref() else { return true };
        match found {
            Found::Directory(key) if after.starts_with(key) => true,
            found => found.key() > after,
        }
    }

    /// The next objects; none at the end.
    fn step(&mut self) -> io::Result<Vec<(String, Metadata)>> {
        let mut objects = Vec::new();
        while objects.len() < STEP
            && let Some(level) = self.rest.last_mut()
        {
            match level.next() {
                None => drop(self.rest.pop()),
                Some(Found::Directory(key)) => {
                    let names = self.names(&key)?;
                    self.rest.push(names.into_iter());
                }
                Some(Found::Object(key)) => match fs::metadata(self.directory.root.join(&key)) {
                    Ok(metadata) => objects.push((key, metadata)),
                    // Deleted since.
                    Err(error) if is_absence(&error) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(objects)
    }

    /// What is in a directory, in the order of the keys it leads to: the slash counts.
    fn names(&self, prefix: &str) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(self.directory.root.join(prefix)) {
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::Error::other(NotUnicode))?;
            if prefix.is_empty() && name == TEMPORARY {
                continue;
            }
            let found = if entry.file_type()?.is_dir() {
                Found::Directory(format!("{prefix}{name}/"))
            } else {
                Found::Object(format!("{prefix}{name}"))
            };
            if self.is_ahead(&found) {
                names.push(found);
            }
        }
        names.sort_by(|a, b| a.key().cmp(b.key()));
        Ok(names)
    }
}

/// The objects whose keys begin so, with nothing or with the names of directories, each followed by a
/// slash, and come after this one.
pub(super) fn walk(
    directory: Arc<Directory>,
    prefix: String,
    after: Option<String>,
) -> BoxStream<'static, Result<(String, Metadata), ArtifactError>> {
    let steps = try_unfold(Walk::begin(directory, prefix, after), |mut walk| async move {
        let step = tokio::task::spawn_blocking(move || {
            let objects = walk.step();
            (walk, objects)
        });
        let (walk, objects) = step.await.map_err(failed("list", ""))?;
        let objects = objects.map_err(failed("list", ""))?;
        Ok((!objects.is_empty()).then_some((objects, walk)))
    });
    steps
        .map_ok(|objects| iter(objects.into_iter().map(Ok::<_, ArtifactError>)))
        .try_flatten()
        .boxed()
}

#[async_trait]
impl ObjectTransfer for LocalObjects {
    fn list(&self) -> BoxStream<'static, Result<StoredObject, ArtifactError>> {
        walk(self.0.clone(), String::new(), None)
            .map_ok(|(key, metadata)| StoredObject { key, bytes: metadata.len() })
            .boxed()
    }

    async fn open(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        check_key("read", key)?;
        let opened =
            self.blocking_at("read", key.to_owned(), |_, path, key| open_object(path, key));
        Ok(pieces(opened.await?, key.to_owned()))
    }

    async fn put(&self, key: &str, file: &Path) -> Result<(), ArtifactError> {
        check_key("write", key)?;
        let source = file.to_owned();
        self.blocking_at("write", key.to_owned(), move |directory, path, key| {
            directory.write_file(path, &source).map_err(failed("write", key))
        })
        .await
    }
}
