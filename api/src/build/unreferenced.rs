//! Objects of a function that none of its versions refers to, whoever left them.
//!
//! A process that is killed leaves a source that it has stored and that was not accepted, a bundle that
//! was not loaded, and what it was to remove. Such objects are known by their age: younger ones may
//! be about to be referred to.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ArtifactStore, ListedObject};
use cloudserve_protocol::ids::{BundleHash, FunctionId, SourceHash};
use cloudserve_store::function::StoredVersion;
use futures::future::ready;
use futures::stream::{StreamExt, TryStreamExt};

use super::source::hash_in;

/// When an object is old. A source is referred to within half of it
/// ([`super::leftovers::ACCEPTED_WITHIN`]); the other half is twice what the clocks of this machine and
/// of the storage may be apart: S3 refuses requests beyond 15 minutes.
const OLD_AFTER: Duration = Duration::from_hours(1);

/// Objects of a function that are listed at most: a version has four.
const MOST_LISTED: usize = 10_000;

/// The old objects of a function.
pub(super) async fn old_objects(
    artifacts: &dyn ArtifactStore,
    id: FunctionId,
) -> Result<Vec<ArtifactKey>, ArtifactError> {
    let now = SystemTime::now();
    let old = artifacts.list(id).take(MOST_LISTED).try_filter_map(move |object: ListedObject| {
        let age = now.duration_since(object.stored_at).unwrap_or_default();
        let is_old = age >= OLD_AFTER;
        ready(Ok::<_, ArtifactError>(is_old.then_some(object.key)))
    });
    old.try_collect().await
}

/// The bundles and the sources that these are of.
pub(super) fn contents(keys: &[ArtifactKey]) -> (BTreeSet<BundleHash>, BTreeSet<SourceHash>) {
    let (mut bundles, mut sources) = (BTreeSet::new(), BTreeSet::new());
    for key in keys {
        match key {
            ArtifactKey::Source { path, .. } => sources.extend(hash_in(path)),
            ArtifactKey::Bundle { hash, .. }
            | ArtifactKey::SourceMap { hash, .. }
            | ArtifactKey::Assets { hash, .. } => bundles.extend([hash.clone()]),
            _ => {}
        }
    }
    (bundles, sources)
}

/// Leaves those that none of these versions refers to. Of a source it is enough that one has the same:
/// where that lies is not known of each.
pub(super) fn retain_unreferenced(keys: &mut Vec<ArtifactKey>, versions: &[StoredVersion]) {
    let sources: BTreeSet<_> = versions.iter().map(|version| &version.source_hash).collect();
    let bundles: BTreeSet<_> = versions.iter().flat_map(StoredVersion::bundles).collect();
    keys.retain(|key| match key {
        ArtifactKey::Source { path, .. } => {
            hash_in(path).is_some_and(|hash| !sources.contains(&hash))
        }
        ArtifactKey::Bundle { hash, .. }
        | ArtifactKey::SourceMap { hash, .. }
        | ArtifactKey::Assets { hash, .. } => !bundles.contains(hash),
        _ => false,
    });
}
