//! `cloudserve admin verify`: an archive read to its end and compared with its own hashes.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use cloudserve_store::transfer::{Record, StoredObject};

use super::archive::{ArchiveError, Step, Visitor, read};
use super::progress::Progress;
use super::summary;

/// What to check.
#[derive(Args)]
pub(crate) struct VerifyOptions {
    /// What `admin export` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks at everything and keeps nothing.
struct Look {
    progress: Progress,
    records: u64,
    objects: u64,
}

impl Visitor for Look {
    type Error = ArchiveError;

    fn record(&mut self, _: Record, _: usize) -> Result<Step, ArchiveError> {
        self.records += 1;
        self.progress.at(&"records", self.records);
        Ok(Step::On)
    }

    fn object(&mut self, _: &StoredObject, _: &mut dyn Read) -> Result<Step, ArchiveError> {
        self.objects += 1;
        self.progress.at(&"objects", self.objects);
        Ok(Step::On)
    }
}

/// Does it.
pub(super) fn run(options: &VerifyOptions) -> Result<String, ArchiveError> {
    let mut look = Look { progress: Progress::begin("checking"), records: 0, objects: 0 };
    let manifest = read(&options.file, &mut look)?.ok_or(ArchiveError::CutOff)?;
    summary::warn(&manifest);
    let told = summary::told(&options.file, &manifest, &[], options.json);
    Ok(if options.json { told } else { format!("whole: {told}") })
}
