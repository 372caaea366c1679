//! Objects as local files.
//!
//! Invariant: a file under its final name is complete and durable. It is written beside, fsynced,
//! renamed, and the directory that names it is fsynced; a reader that has opened a file keeps
//! reading that one when it is replaced. No directory goes while a file gets its name.

mod transfer;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloudserve_protocol::artifact::{
    ArtifactError, ArtifactKey, ArtifactStore, DEPENDENCIES, ListedObject,
};
use cloudserve_protocol::ids::FunctionId;
use futures::future::{Ready, ready};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};
use parking_lot::{Mutex, RwLock};
use tempfile::NamedTempFile;

use crate::object_key::{failed, text_of};

/// Size of the pieces of [`ArtifactStore::stream`].
const PIECE_BYTES: usize = 256 * 1024;
/// Directories remembered as durable; beyond that they are forgotten and fsynced again.
const KNOWN_DIRECTORIES: usize = 10_000;
/// Where files are written before they get their name. No key begins with a dot.
const TEMPORARY: &str = ".tmp";

/// [`ArtifactStore`] over a directory.
#[derive(Clone)]
pub(crate) struct LocalObjects(Arc<Directory>);

struct Directory {
    root: PathBuf,
    temporary: PathBuf,
    /// Directories whose names are known to be on disk.
    durable: Mutex<HashSet<PathBuf>>,
    /// Read by those who give files their names, written by those who remove directories.
    naming: RwLock<()>,
}

impl LocalObjects {
    /// Takes an existing directory.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let temporary = root.join(TEMPORARY);
        DirBuilder::new().recursive(true).mode(0o700).create(&temporary)?;
        let durable = Mutex::new(HashSet::from([root.to_owned()]));
        let (root, naming) = (root.to_owned(), RwLock::default());
        Ok(Self(Arc::new(Directory { root, temporary, durable, naming })))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0.root
    }

    pub(crate) fn temporary(&self) -> &Path {
        &self.0.temporary
    }

    /// Removes what interrupted writes and deletes have left. Only while no other process has the
    /// directory in use.
    pub(crate) fn clear_temporary(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0.temporary)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Runs file work off the async threads.
    async fn blocking<T, F>(
        &self,
        operation: &'static str,
        key: &ArtifactKey,
        work: F,
    ) -> Result<T, ArtifactError>
    where
        T: Send + 'static,
        F: FnOnce(&Directory, &Path, &str) -> Result<T, ArtifactError> + Send + 'static,
    {
        self.blocking_at(operation, text_of(operation, key)?, work).await
    }

    /// The same by a checked key.
    async fn blocking_at<T, F>(
        &self,
        operation: &'static str,
        key: String,
        work: F,
    ) -> Result<T, ArtifactError>
    where
        T: Send + 'static,
        F: FnOnce(&Directory, &Path, &str) -> Result<T, ArtifactError> + Send + 'static,
    {
        let path = self.0.root.join(&key);
        let (directory, name) = (self.0.clone(), key.clone());
        tokio::task::spawn_blocking(move || work(&directory, &path, &name))
            .await
            .map_err(failed(operation, &key))?
    }
}

/// The pieces of an open object.
fn pieces(file: File, key: String) -> BoxStream<'static, Result<Bytes, ArtifactError>> {
    let pieces = try_unfold((file, key), |(mut file, key)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut file);
            (file, piece)
        });
        let (file, piece) = read.await.map_err(failed("read", &key))?;
        let piece = piece.map_err(failed("read", &key))?;
        Ok((!piece.is_empty()).then_some((piece, (file, key))))
    });
    pieces.boxed()
}

fn open_object(path: &Path, key: &str) -> Result<File, ArtifactError> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
    match opened {
        Ok((true, file)) => Ok(file),
        Err(error) if !is_absence(&error) => Err(failed("read", key)(error)),
        // A directory on the way to other objects is no object.
        _ => Err(ArtifactError::NotFound { key: key.to_owned() }),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Directory {
    fn write(&self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let mut temporary = NamedTempFile::new_in(&self.temporary)?;
        fill(temporary.as_file_mut())?;
        temporary.as_file().sync_all()?;
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let _naming = self.naming.read();
        self.make_durable(parent)?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_directory(parent)
    }

    /// A copy and not a link: the caller keeps its file and may change it.
    fn write_file(&self, path: &Path, source: &Path) -> io::Result<()> {
        self.write(path, |file| io::copy(&mut File::open(source)?, file).map(drop))
    }

    /// Creates a directory and its parents and makes their names durable.
    ///
    /// One that exists already is not taken on trust: its name may have been created just before
    /// a crash, or by another thread that has not fsynced it yet.
    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        // It is looked whether it is there: whoever removes it may be another process.
        if self.durable.lock().contains(directory) && directory.is_dir() {
            return Ok(());
        }
        let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.make_durable(parent)?;
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_directory(parent)?,
        }
        let mut durable = self.durable.lock();
        if durable.len() >= KNOWN_DIRECTORIES {
            durable.clear();
            durable.insert(self.root.clone());
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    /// Moves the directory out of sight at once, then removes it file by file.
    fn remove(&self, directory: &Path) -> io::Result<()> {
        let doomed = tempfile::tempdir_in(&self.temporary)?;
        {
            let _removing = self.naming.write();
            self.durable.lock().retain(|known| !known.starts_with(directory));
            match fs::rename(directory, doomed.path().join("object")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
        }
        sync_directory(&self.root)?;
        doomed.close()
    }

    /// Removes the directories on the way to an object that have nothing in them any more.
    fn remove_empty(&self, object: &Path) {
        let _removing = self.naming.write();
        for directory in object.ancestors().skip(1).take_while(|above| *above != self.root) {
            // What is not empty stays; so may what is, which does no harm.
            if fs::remove_dir(directory).is_err() {
                return;
            }
            self.durable.lock().remove(directory);
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads up to one piece; shorter only at the end.
fn read_piece(file: &mut File) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

#[async_trait]
impl ArtifactStore for LocalObjects {
    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<(), ArtifactError> {
        self.blocking("write", key, move |directory, path, key| {
            directory.write(path, |file| file.write_all(&bytes)).map_err(failed("write", key))
        })
        .await
    }

    async fn put_file(&self, key: &ArtifactKey, file: &Path) -> Result<(), ArtifactError> {
        let source = file.to_owned();
        self.blocking("write", key, move |directory, path, key| {
            directory.write_file(path, &source).map_err(failed("write", key))
        })
        .await
    }

    async fn get(&self, key: &ArtifactKey, max_bytes: u64) -> Result<Bytes, ArtifactError> {
        self.blocking("read", key, move |_, path, key| {
            let file = open_object(path, key)?;
            let length = file.metadata().map_err(failed("read", key))?.len();
            if length > max_bytes {
                return Err(ArtifactError::TooLarge { key: key.to_owned(), max_bytes });
            }
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes).map_err(failed("read", key))?;
            Ok(bytes.into())
        })
        .await
    }

    async fn stream(
        &self,
        key: &ArtifactKey,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        let file = self.blocking("read", key, |_, path, key| open_object(path, key)).await?;
        Ok(pieces(file, key.to_string()))
    }

    async fn exists(&self, key: &ArtifactKey) -> Result<bool, ArtifactError> {
        self.blocking("read", key, |_, path, key| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(failed("read", key)(error)),
        })
        .await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ArtifactError> {
        self.blocking("delete", key, |directory, path, key| {
            // A directory on the way to other objects is no object, and stays.
            if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
                return Ok(());
            }
            match fs::remove_file(path) {
                Err(error) if !is_absence(&error) => return Err(failed("delete", key)(error)),
                _ => directory.remove_empty(path),
            }
            Ok(())
        })
        .await
    }

    async fn delete_function(&self, function: FunctionId) -> Result<(), ArtifactError> {
        let key = function.to_string();
        let (directory, name) = (self.0.clone(), key.clone());
        tokio::task::spawn_blocking(move || directory.remove(&directory.root.join(name)))
            .await
            .map_err(failed("delete", &key))?
            .map_err(failed("delete", &key))
    }

    fn list(
        &self,
        function: FunctionId,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        let found = transfer::walk(self.0.clone(), format!("{function}/"), None);
        found
            .try_filter_map(move |of| listed(ArtifactKey::of_function(function, &of.0), of))
            .boxed()
    }

    fn list_dependencies(
        &self,
        after: Option<&ArtifactKey>,
    ) -> BoxStream<'static, Result<ListedObject, ArtifactError>> {
        let after = after.map(ToString::to_string);
        let found = transfer::walk(self.0.clone(), DEPENDENCIES.to_owned(), after);
        found.try_filter_map(|of| listed(ArtifactKey::of_dependencies(&of.0), of)).boxed()
    }
}

/// A file as an object in a listing, if it is one.
fn listed(
    key: Option<ArtifactKey>,
    (text, metadata): (String, Metadata),
) -> Ready<Result<Option<ListedObject>, ArtifactError>> {
    let listed = key.map(|key| {
        let stored_at = metadata.modified().map_err(failed("list", &text));
        stored_at.map(|stored_at| ListedObject { key, stored_at })
    });
    ready(listed.transpose())
}
