//! What versions need besides themselves: master keys and objects.

use std::collections::{BTreeSet, HashSet};

use cloudserve_identity::Sealer;
use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_store::function::Version;
use cloudserve_store::transfer::Record;
use sha2::{Digest, Sha256};

/// Half a hash: enough to tell keys apart, and all that is kept of one.
pub(super) type Short = [u8; 16];

/// What was learned of the versions so far.
#[derive(Default)]
pub(in crate::admin) struct Versions {
    pub(super) count: u64,
    pub(super) master_keys: BTreeSet<String>,
    /// Objects that are needed and were not seen: some 20 bytes for each bundle and tree.
    needed: HashSet<Short>,
}

impl Versions {
    /// Learns of a record, if it is a version.
    pub(in crate::admin) fn record(&mut self, record: &Record) {
        let Record::Version(version) = record else { return };
        self.count += 1;
        self.master_keys.extend(Sealer::key_id(&version.env));
        self.needed.extend(objects_of(version).map(|key| short(&key)));
    }

    /// Learns of an object.
    pub(in crate::admin) fn object(&mut self, key: &str) {
        self.needed.remove(&short(key));
    }

    /// Objects that are needed and were not seen.
    pub(in crate::admin) fn missing_objects(&self) -> u64 {
        self.needed.len() as u64
    }
}

/// Keys of what a version cannot be served without.
fn objects_of(version: &Version) -> impl Iterator<Item = String> {
    let built = version.built.iter();
    built.flat_map(|built| {
        let bundle =
            ArtifactKey::Bundle { function: version.function_id, hash: built.bundle_hash.clone() };
        let tree =
            built.runtime_deps().map(|hash| ArtifactKey::DependencyTree { hash: hash.clone() });
        std::iter::once(bundle).chain(tree).map(|key| key.to_string())
    })
}

pub(super) fn short(key: &str) -> Short {
    let hash: [u8; 32] = Sha256::digest(key).into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}
