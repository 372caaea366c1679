//! `cloudserve admin import`: what was exported, into an empty installation.
//!
//! Three walks over the archive and one over the target:
//! 1. The archive is read to its end and every hash compared, all environments are opened, and what
//!    the target holds already must be in the archive, equal. Nothing is written before that.
//! 2. Accounts are added: everything else belongs to one.
//! 3. Everything else is added, records by id, objects under their keys.
//! 4. The target is walked and must hold what the archive does.
//!
//! Invariant: it may be cut off anywhere and run again. From the first write to the last check a
//! note in the target keeps everybody else out of it.

mod apply;
mod check;
mod target;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use cloudserve_identity::Sealer;
use cloudserve_protocol::artifact::ArtifactError;
use cloudserve_store::transfer::Transfer;
use cloudserve_store::{
    DataDirLock, OpenError, StoreError, open_embedded_import, open_production_import,
};
use tokio::runtime::Runtime;

use self::apply::{Apply, Stage};
use self::check::{Check, Expected};
use super::archive::{ArchiveError, Manifest, read};
use super::progress::say;
use super::{Place, summary};
use crate::secrets::{FromEnvironment, LostKeys, Secrets};
use crate::storage::Storage;

pub(super) const EXAMPLES: &str = "\
Examples:
  cloudserve admin import cloudserve-2026-01-31.tar.gz --data-dir /var/lib/cloudserve
  CLOUDSERVE_MONGODB_URI=... CLOUDSERVE_S3_BUCKET=... cloudserve admin import FILE   # to servers

The target is empty, or holds a part of what is in the file: cut off, it may be run again. No server
runs over it meanwhile. It knows the master key that environments are sealed under: in
CLOUDSERVE_MASTER_KEY or CLOUDSERVE_MASTER_KEY_PREVIOUS, or in secrets/master-key of the data
directory. People log in again; their passwords and API keys stay.";

/// What, and into what.
#[derive(Args)]
pub(crate) struct ImportOptions {
    /// What `admin export` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Why the target does not hold it now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the target cannot be opened")]
    Open(#[from] OpenError),
    #[error("the target's records cannot be read or written")]
    Records(#[from] StoreError),
    #[error("the target's objects cannot be read or written")]
    Objects(#[from] ArtifactError),
    #[error("a record cannot be compared")]
    Line(#[from] serde_json::Error),
    #[error("cannot use a temporary file in {}", directory.display())]
    Temporary {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the target is not empty: it holds {what}, which is not in the archive; nothing was changed"
    )]
    NotEmpty { what: String },
    #[error("the target is not empty: its {what} is not that of the archive; nothing was changed")]
    Differs { what: String },
    #[error(
        "{versions} environments are sealed under a master key that is not known here ({keys}); \
         give it in CLOUDSERVE_MASTER_KEY or CLOUDSERVE_MASTER_KEY_PREVIOUS, or put it into \
         secrets/master-key of the data directory, or name it in CLOUDSERVE_MASTER_KEY_LOST if nobody \
         has it any more; nothing was changed"
    )]
    UnknownKeys { versions: u64, keys: String },
    #[error(
        "{versions} environments do not open under the master keys that are known here; the first \
         is of function {first}; nothing was changed"
    )]
    DoNotOpen { versions: u64, first: String },
    #[error("the archive changed while it was imported; run this again")]
    Changed,
    #[error(
        "the target does not hold the {what} of the archive; does anybody else write to it? It is \
         not usable like this: run this again, or begin with an empty one"
    )]
    NotEqual { what: String },
}

/// Does it.
pub(super) fn run(
    runtime: &Runtime,
    options: &ImportOptions,
    given: &FromEnvironment,
) -> Result<String, Box<dyn std::error::Error>> {
    let (storage, data_dir) = options.place.storage(given)?;
    match storage {
        Storage::Embedded => {
            let lock = DataDirLock::acquire(&data_dir).map_err(ImportError::Open)?;
            let sealer = sealer(Some(&data_dir), given)?;
            let transfer = open_embedded_import(&lock).map_err(ImportError::Open)?;
            Ok(import(runtime, &transfer, (sealer, given.lost.clone()), options)?)
        }
        Storage::Production(servers) => {
            let sealer = sealer(None, given)?;
            let opened = runtime.block_on(open_production_import(&servers.mongo, &servers.s3));
            let transfer = opened.map_err(ImportError::Open)?;
            Ok(import(runtime, &transfer, (sealer, given.lost.clone()), options)?)
        }
    }
}

/// What opens environments, if a key is known.
fn sealer(
    data_dir: Option<&Path>,
    given: &FromEnvironment,
) -> Result<Option<Sealer>, super::AdminError> {
    let keys = Secrets::known_masters(data_dir, given)?;
    Ok(keys.split_first().map(|(current, previous)| Sealer::with_previous(current, previous)))
}

fn import(
    runtime: &Runtime,
    transfer: &Transfer,
    (sealer, lost): (Option<Sealer>, LostKeys),
    options: &ImportOptions,
) -> Result<String, ImportError> {
    let mut check = Check::begin(runtime, transfer, sealer, lost);
    let manifest = read(&options.file, &mut check)?.ok_or(ArchiveError::CutOff)?;
    let expected = check.end()?;
    summary::warn(&manifest);
    runtime.block_on(transfer.records.begin_import())?;
    if expected.absent_records + expected.absent_objects > 0 {
        let mut apply = Apply::begin(runtime, transfer, Stage::Accounts)?;
        read(&options.file, &mut apply)?;
        apply.end()?;
        let mut apply = Apply::begin(runtime, transfer, Stage::Rest)?;
        let again = read(&options.file, &mut apply)?;
        apply.end()?;
        if again.as_ref() != Some(&manifest) {
            return Err(ImportError::Changed);
        }
    }
    let expired = target::hold(runtime, transfer, &expected)?;
    runtime.block_on(transfer.records.finish_import())?;
    Ok(told(options, &manifest, &expected, expired))
}

fn told(options: &ImportOptions, manifest: &Manifest, before: &Expected, expired: u64) -> String {
    let counts = [
        ("addedRecords", before.absent_records),
        ("addedObjects", before.absent_objects),
        ("expiredRecords", expired),
    ];
    let told = summary::told(&options.file, manifest, &counts, options.json);
    if options.json {
        return told;
    }
    if expired > 0 {
        say(&format_args!(
            "{expired} records are past the age that is kept here, and are not there"
        ));
    }
    let Expected { absent_records, absent_objects, .. } = before;
    format!("added {absent_records} records and {absent_objects} objects of {told}")
}
