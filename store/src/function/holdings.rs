//! What an account has of functions and versions, and how much of it it may have.

use super::{BuiltVersion, NewVersion, SealedEnv, Source};
use crate::StoreError;

/// What the record of a file has beside its path, and that of a version beside what is counted.
const RECORD_BYTES: u64 = 256;

/// What an account has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Versions that wait or are in work.
    pub queued: u32,
    /// Functions.
    pub functions: u32,
    /// What all versions take of storage. Each counts whole, also where it shares its source or its
    /// bundle with another: which of them stays is not known before the others go.
    pub bytes: u64,
}

/// What an account may have; `None`: any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldingBounds {
    /// Versions that wait or are in work.
    pub queued: Option<u32>,
    /// Functions.
    pub functions: Option<u32>,
    /// As [`Holdings::bytes`]. What is built is counted when it is served: by that of the versions in the
    /// queue an account may have more.
    pub bytes: Option<u64>,
}

impl HoldingBounds {
    /// Whether an account that has this may have this version as well.
    pub fn admit(&self, held: Holdings, new: &NewVersion) -> Result<(), StoreError> {
        if let Some(max) = self.queued.filter(|max| held.queued >= *max) {
            return Err(StoreError::QueueFull { max });
        }
        let more_functions = self.functions.filter(|_| new.version == 1);
        if let Some(max) = more_functions.filter(|max| held.functions >= *max) {
            return Err(StoreError::TooManyFunctions { max });
        }
        let more_bytes = new.bytes();
        // A new environment for what is built is a row and no object: nobody at the bound has to keep a secret
        // that is known.
        let may_exceed = new.built.is_some();
        if let Some(max_bytes) =
            self.bytes.filter(|max| !may_exceed && held.bytes.saturating_add(more_bytes) > *max)
        {
            let held_bytes = held.bytes;
            return Err(StoreError::TooManyBytes { max_bytes, held_bytes, more_bytes });
        }
        Ok(())
    }
}

impl NewVersion {
    /// What it takes of storage, without what is not yet built.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        version_bytes(&self.source, &self.env, self.built.as_ref())
    }
}

/// What a version takes of storage.
pub(crate) fn version_bytes(source: &Source, env: &SealedEnv, built: Option<&BuiltVersion>) -> u64 {
    let long = |length: usize| length as u64;
    let files = source.files.iter().map(|file| file.bytes + long(file.path.len()) + RECORD_BYTES);
    let packages = source.dependencies.iter().chain(&source.optional_dependencies);
    let packages = packages.map(|(name, range)| long(name.len() + range.len()));
    let texts = [&source.package_lock, &source.overrides].into_iter().flatten();
    files.sum::<u64>()
        + packages.sum::<u64>()
        + texts.map(|text| long(text.len())).sum::<u64>()
        + long(env.0.len())
        + built.map_or(0, BuiltVersion::bytes)
        + RECORD_BYTES
}
