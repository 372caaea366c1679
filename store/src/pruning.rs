//! Which versions of a function go, whatever the back end.

use std::collections::HashSet;

use cloudserve_protocol::ids::{BundleHash, SourceHash};

use crate::function::{DeployStatus, Pruned, StoredVersion, Sweep};

/// Failed versions that are kept: nobody goes back to them, but what went wrong is read for a while.
const FAILED_KEPT: usize = 5;

/// Divides the versions of a function, newest first: the newest `keep` that were built stay (at least
/// one), so do the served one and those that wait or are in work, and of those that failed the newest
/// few. So failures take no place from what can be gone back to, nor does what may come to nothing.
pub(crate) fn divide(
    all: Vec<(DeployStatus, StoredVersion)>,
    active: Option<u32>,
    keep: u32,
) -> Pruned {
    let mut pruned = Pruned::default();
    let (mut n_built, mut n_failed) = (0, 0);
    for (status, mut version) in all {
        if status.is_under_way() {
            pruned.kept.push(version);
            continue;
        }
        version.making.clear();
        let (n, most) = if status == DeployStatus::Failed {
            (&mut n_failed, FAILED_KEPT)
        } else {
            (&mut n_built, keep.max(1) as usize)
        };
        *n += 1;
        if *n <= most || active == Some(version.version) {
            pruned.kept.push(version);
        } else {
            pruned.removed.push(version);
        }
    }
    pruned
}

/// Whether there may be objects that no version refers to: of versions that go, or what the sweep names.
pub(crate) fn leaves_objects(pruned: &Pruned, sweep: &Sweep) -> bool {
    let is_bundle =
        |hash: &BundleHash| pruned.kept.iter().any(|version| version.bundles().any(|b| b == hash));
    let is_source =
        |hash: &SourceHash| pruned.kept.iter().any(|version| version.source_hash == *hash);
    let are_all_known =
        || sweep.stored.iter().all(is_bundle) && sweep.sources.iter().all(is_source);
    // None is kept of a function that is not there: nothing is known then.
    !pruned.kept.is_empty() && (!pruned.removed.is_empty() || !are_all_known())
}

/// The versions of which it must be known where their source is: those that go, and those that may
/// have the same. A source may come with a large lock file, so it is read of no other.
pub(crate) fn sharing(pruned: &mut Pruned) -> impl Iterator<Item = &mut StoredVersion> {
    let Pruned { removed, kept, .. } = pruned;
    let hashes: HashSet<SourceHash> =
        removed.iter().map(|version| version.source_hash.clone()).collect();
    let alike = kept.iter_mut().filter(move |version| hashes.contains(&version.source_hash));
    removed.iter_mut().chain(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> StoredVersion {
        // Odd ones are of one source.
        let source = if number % 2 == 1 { "odd".to_owned() } else { number.to_string() };
        StoredVersion {
            version: number,
            source_hash: SourceHash::of(source.as_bytes()),
            source: None,
            built: None,
            making: Vec::new(),
        }
    }

    fn numbers(versions: &[StoredVersion]) -> Vec<u32> {
        versions.iter().map(|version| version.version).collect()
    }

    #[test]
    fn failures_take_no_place_from_what_was_built() {
        use DeployStatus::{Active, Failed, Superseded};
        // Three were built, then 19 failed.
        let all = |statuses: &[(u32, DeployStatus)]| {
            let failed = (4..=22).rev().map(|number| (Failed, version(number)));
            let built = statuses.iter().map(|(number, status)| (*status, version(*number)));
            failed.chain(built).collect::<Vec<_>>()
        };
        let built = [(3, Active), (2, Superseded), (1, Active)];
        let pruned = divide(all(&built), Some(3), 3);
        assert_eq!(numbers(&pruned.kept), [22, 21, 20, 19, 18, 3, 2, 1]);
        assert_eq!(numbers(&pruned.removed), (4..=17).rev().collect::<Vec<_>>());
        let pruned = divide(all(&built), Some(1), 0);
        assert_eq!(numbers(&pruned.kept), [22, 21, 20, 19, 18, 3, 1]);
    }

    #[test]
    fn what_waits_or_is_in_work_stays_and_keeps_nothing_else() {
        use DeployStatus::{Active, Deploying, Failed, Pending, Superseded};
        let of = [
            (9, Pending),
            (8, Failed),
            (7, Deploying),
            (6, Superseded),
            (5, Pending),
            (4, Superseded),
            (3, Superseded),
            (2, Active),
            (1, Superseded),
        ];
        let making = vec![BundleHash::of(b"bundle")];
        let all = of.map(|(number, status)| {
            (status, StoredVersion { making: making.clone(), ..version(number) })
        });
        let pruned = divide(all.into(), Some(2), 2);
        assert_eq!(numbers(&pruned.kept), [9, 8, 7, 6, 5, 4, 2]);
        assert_eq!(numbers(&pruned.removed), [3, 1]);
        // What has ended makes nothing any more.
        for kept in &pruned.kept {
            assert_eq!(kept.making.is_empty(), ![9, 7, 5].contains(&kept.version));
        }
        let stored =
            |stored: &[u8]| Sweep { stored: vec![BundleHash::of(stored)], ..Sweep::default() };
        let kept = Pruned { removed: Vec::new(), ..pruned };
        assert!(!leaves_objects(&kept, &stored(b"bundle")));
        assert!(leaves_objects(&kept, &stored(b"nobody's")));
    }

    #[test]
    fn only_sources_that_may_be_shared_are_looked_at() {
        let all = (1..=4).rev().map(|number| (DeployStatus::Active, version(number))).collect();
        let mut pruned = divide(all, Some(4), 3);
        assert_eq!(numbers(&pruned.removed), [1]);
        let looked_at: Vec<u32> = sharing(&mut pruned).map(|version| version.version).collect();
        assert_eq!(looked_at, [1, 3]);
    }
}
