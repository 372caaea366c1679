//! `cloudserve admin export`: everything an installation holds, into one file.
//!
//! Records first, then objects: an object is there before the record that names it. What happens
//! meanwhile may be in the file or not, but each function is of one moment, with its versions, and
//! the only one of its name. Invariant: under its name the file is whole and durable.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use clap::Args;
use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::transfer::{Key, Kind, ObjectTransfer, Record, StoredObject, Transfer};
use cloudserve_store::{OpenError, StoreError, open_embedded_transfer, open_production_transfer};
use futures::stream::{BoxStream, TryStreamExt};
use tokio::runtime::Runtime;

use super::archive::{ArchiveWriter, Manifest, Names};
use super::progress::Progress;
use super::unnamed::Unnamed;
use super::{Place, installed, summary};
use crate::secrets::FromEnvironment;
use crate::storage::Storage;

pub(super) const EXAMPLES: &str = "\
Examples:
  cloudserve admin export cloudserve-2026-01-31.tar.gz
  cloudserve admin export --data-dir /var/lib/cloudserve /backup/cloudserve.tar.gz --json

Servers may run meanwhile: what they do after the export has begun may be in the file or not. The
file holds password hashes and sealed environments, and is readable by its owner alone. It does not
hold the master key: keep that apart from it.";

/// Objects up to this size are read ahead, and held in memory until it is their turn.
const SMALL_BYTES: u64 = 1024 * 1024;
/// Objects read ahead.
const READ_AHEAD: usize = 8;

/// Where to, and from where.
#[derive(Args)]
pub(crate) struct ExportOptions {
    /// The file to write. There must be none of this name.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Why there is no file now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("{} is there already; name another file", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the installation cannot be opened")]
    Open(#[from] OpenError),
    #[error("its records cannot be read")]
    Records(#[from] StoreError),
    #[error("its objects cannot be read")]
    Objects(#[from] ArtifactError),
    #[error("object {key} cannot be exported")]
    Object {
        key: String,
        #[source]
        source: io::Error,
    },
    #[error("object storage lists {key} out of order")]
    Unordered { key: String },
}

/// Does it.
pub(super) fn run(
    runtime: &Runtime,
    options: &ExportOptions,
    given: &FromEnvironment,
) -> Result<String, Box<dyn std::error::Error>> {
    let (storage, data_dir) = options.place.storage(given)?;
    let transfer = match storage {
        Storage::Embedded => open_embedded_transfer(&installed(data_dir)?),
        Storage::Production(servers) => {
            runtime.block_on(open_production_transfer(&servers.mongo, &servers.s3))
        }
    };
    let transfer = transfer.map_err(ExportError::Open)?;
    let manifest = write(runtime, &transfer, &options.file)?;
    summary::warn(&manifest);
    Ok(summary::told(&options.file, &manifest, &[], options.json))
}

/// Writes the file, and gives it its name when it is durable.
fn write(runtime: &Runtime, transfer: &Transfer, file: &Path) -> Result<Manifest, ExportError> {
    let path = || file.to_owned();
    let failed = |source| ExportError::Write { path: path(), source };
    // Not found out after hours.
    if file.symlink_metadata().is_ok() {
        return Err(ExportError::Exists { path: path() });
    }
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let unnamed = Unnamed::new_in(directory).map_err(failed)?;
    let out = BufWriter::new(unnamed.file());
    let mut archive = ArchiveWriter::begin(out).map_err(failed)?;
    let read = |kind, after: Option<&Key>| runtime.block_on(transfer.records.read(kind, after));
    records(read, &mut archive, failed)?;
    objects(runtime, transfer, &mut archive)?;
    let (out, manifest) = archive.finish().map_err(failed)?;
    out.into_inner().map_err(|error| failed(error.into_error()))?;
    unnamed.file().sync_all().map_err(failed)?;
    unnamed.name(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ExportError::Exists { path: path() },
        _ => failed(error),
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(manifest)
}

/// A function that is deleted and deployed again between two pages of them is in both, and in the
/// file as it was first: that is written by then. Its objects are gone, as those of others that are
/// deleted meanwhile.
#[derive(Default)]
struct Once {
    names: Names,
    left_out: Option<FunctionId>,
}

impl Once {
    fn takes(&mut self, record: &Record) -> bool {
        match record {
            Record::Function(function) => {
                let is_first = self.names.add(function);
                self.left_out = (!is_first).then_some(function.id);
                is_first
            }
            // It comes right after its function.
            Record::Version(version) => self.left_out != Some(version.function_id),
            _ => true,
        }
    }
}

/// Writes what is read page by page: the records of a kind from the one after a key on.
pub(super) fn records<W: Write>(
    mut read: impl FnMut(Kind, Option<&Key>) -> Result<Vec<Record>, StoreError>,
    archive: &mut ArchiveWriter<W>,
    failed: impl Fn(io::Error) -> ExportError,
) -> Result<(), ExportError> {
    let mut progress = Progress::begin("exporting records");
    let mut once = Once::default();
    for kind in Kind::ALL {
        let (mut after, mut count) = (None, 0);
        loop {
            let page = read(kind, after.as_ref())?;
            let Some(last) = page.last() else { break };
            after = Some(last.key());
            count += page.len() as u64;
            for record in page.iter().filter(|record| once.takes(record)) {
                archive.record(record).map_err(&failed)?;
            }
            progress.at(&kind, count);
        }
        archive.end_records(kind).map_err(&failed)?;
    }
    Ok(())
}

/// An object on its way into the file.
enum Content {
    Whole(Bytes),
    /// Read when it is its turn: a connection that waits is closed.
    Large(u64),
    /// Deleted since it was listed.
    Gone,
}

async fn fetch(
    objects: &dyn ObjectTransfer,
    object: StoredObject,
) -> Result<(String, Content), ArtifactError> {
    if object.bytes > SMALL_BYTES {
        return Ok((object.key, Content::Large(object.bytes)));
    }
    let Some(mut pieces) = open(objects, &object.key).await? else {
        return Ok((object.key, Content::Gone));
    };
    let mut whole = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok((object.key, Content::Whole(whole.into())))
}

/// `None`: it was deleted since it was listed.
async fn open(
    objects: &dyn ObjectTransfer,
    key: &str,
) -> Result<Option<BoxStream<'static, Result<Bytes, ArtifactError>>>, ArtifactError> {
    match objects.open(key).await {
        Err(ArtifactError::NotFound { .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

fn objects<W: Write>(
    runtime: &Runtime,
    transfer: &Transfer,
    archive: &mut ArchiveWriter<W>,
) -> Result<(), ExportError> {
    let mut progress = Progress::begin("exporting objects");
    let store = &*transfer.objects;
    let mut found = store.list().map_ok(|object| fetch(store, object)).try_buffered(READ_AHEAD);
    let (mut last, mut count) = (String::new(), 0);
    while let Some((key, content)) = runtime.block_on(found.try_next())? {
        if key <= last {
            return Err(ExportError::Unordered { key });
        }
        let written = match content {
            Content::Gone => continue,
            Content::Whole(bytes) => archive.object(&key, bytes.len() as u64, &mut bytes.reader()),
            Content::Large(bytes) => {
                let Some(incoming) = runtime.block_on(open(store, &key))? else { continue };
                let mut content = Pieces { runtime, incoming, rest: Bytes::new() };
                archive.object(&key, bytes, &mut content)
            }
        };
        written.map_err(|source| ExportError::Object { key: key.clone(), source })?;
        last = key;
        count += 1;
        progress.at(&"objects", count);
    }
    Ok(())
}

/// The pieces of an object as a file.
struct Pieces<'a> {
    runtime: &'a Runtime,
    incoming: BoxStream<'static, Result<Bytes, ArtifactError>>,
    rest: Bytes,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let next = self.runtime.block_on(self.incoming.try_next()).map_err(io::Error::other)?;
            let Some(piece) = next else { return Ok(0) };
            self.rest = piece;
        }
        let n = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
