//! Objects that no version refers to any more, or never did.
//!
//! A bundle is stored before it is loaded for the first time, and its version refers to it from the
//! activation on. One that is not loaded belongs to nobody, so it is remembered here from before it is
//! stored until it is known what became of it. What this process remembers is lost when it is killed, as is
//! what it was about to accept or to remove: so what is stored of each function is **looked at** once in a
//! while, by one server, and what is old and not referred to is removed ([`super::unreferenced`]).
//!
//! Of functions that are not there, not yet or no longer, the **store** notes that objects of them may
//! be: whoever was to store their source, or to remove what they leave, may have been killed.
//!
//! Objects are removed in a **sweep**, of which the store knows: what a version in work is about to store
//! is noted there, and stored when no sweep is under way that has begun before ([`Leftovers::settled`]). So
//! no server removes what another is about to have served, and versions that wait keep no old ones.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::{BundleHash, FunctionId, UserId};
use cloudserve_store::function::{Pruned, StoredVersion, Sweep};
use cloudserve_store::{FunctionStore, StoreError, Stores};
use futures::future::ready;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use uuid::Uuid;

use super::since::Since;
use super::source::stored_under;
use super::unreferenced::{contents, old_objects, retain_unreferenced};

/// Functions with bundles that are remembered. There are as many as deploys in work, and more only
/// while others of the same functions wait.
const MAX_FUNCTIONS: usize = 10_000;

/// Bundles of one function that are remembered.
const MAX_BUNDLES: usize = 100;

/// How long a sweep keeps builds of its function waiting if it does not end: its process was killed,
/// or it is not known whether an object was removed.
pub(super) const SWEEP_LEASE: Duration = Duration::from_mins(1);

/// What a sweep has not removed by then stays: a removal that was asked for before has come to pass, or
/// never will, when the lease ends.
pub(super) const SWEEP_TIME: Duration = Duration::from_secs(30);

/// How long bundles are left alone that could not be removed: a sweep that does not end keeps builds
/// waiting.
const REST: Duration = Duration::from_mins(10);

/// Objects that one sweep removes at the same time.
const REMOVALS_IN_PARALLEL: usize = 8;

/// For so long after it was noted nothing is removed of a function that is not there: it may be about to be
/// accepted. By then builds of one that was deleted have stored what they were about to.
const REMAINS_AFTER: Duration = Duration::from_hours(1);

/// How long a version may be accepted after it was begun to store its source, before that was noted if it
/// is of a function that is not there yet.
pub(crate) const ACCEPTED_WITHIN: Duration = Duration::from_mins(30);

/// How often it is looked at what is stored of a function.
const LOOK_EVERY: Duration = Duration::from_hours(24);

/// How often it is looked whether a removal has ended.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Returns when no sweep of the function is under way that has begun before.
pub(crate) async fn unswept(
    functions: &dyn FunctionStore,
    id: FunctionId,
) -> Result<(), StoreError> {
    while functions.is_swept(id).await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Removes what is not referred to.
pub(super) struct Leftovers {
    stores: Stores,
    versions_kept: u32,
    remembered: Mutex<BTreeMap<FunctionId, Remembered>>,
    n_remembered: AtomicU64,
}

/// Bundles of a function that may belong to none of its versions.
struct Remembered {
    owner: UserId,
    bundles: Bundles,
    /// Until when they are left alone.
    rest_until: Option<Instant>,
}

/// Each with the number under which it was remembered last: what is remembered again meanwhile is not
/// forgotten.
type Bundles = BTreeMap<BundleHash, u64>;

impl Leftovers {
    pub(super) fn new(stores: Stores, versions_kept: u32) -> Self {
        Self {
            stores,
            versions_kept,
            remembered: Mutex::default(),
            n_remembered: AtomicU64::new(0),
        }
    }

    /// Remembers a bundle that is about to be stored, of a version for which [`Self::settled`] has returned:
    /// a sweep that has begun before it was noted would forget it.
    pub(super) fn remember(&self, owner: UserId, id: FunctionId, bundle: BundleHash) {
        let mut remembered = self.remembered.lock();
        let has_room = remembered.len() < MAX_FUNCTIONS;
        let bundles = match remembered.entry(id) {
            Entry::Occupied(known) => &mut known.into_mut().bundles,
            Entry::Vacant(new) if has_room => {
                let bundles = Bundles::new();
                &mut new.insert(Remembered { owner, bundles, rest_until: None }).bundles
            }
            Entry::Vacant(_) => return,
        };
        if bundles.len() < MAX_BUNDLES || bundles.contains_key(&bundle) {
            bundles.insert(bundle, self.n_remembered.fetch_add(1, Ordering::Relaxed));
        }
    }

    /// Removes versions beyond those that are kept, and the objects that none refers to, nor may in the end.
    /// While somebody else does, that is tried again when another deploy of the function ends, or when
    /// there is nothing to deploy; so are remembered bundles that were not removed. Objects of a version
    /// that is gone, if they were not, go when the function is looked at.
    pub(super) async fn remove(&self, id: FunctionId) {
        self.sweep(id, &[]).await;
    }

    /// Looks at what is stored of a function, if there is one of which nobody has for long, and removes what
    /// none of its versions refers to. Whether there was, and it is known what is stored of it.
    pub(super) async fn look(&self) -> bool {
        let id = match self.stores.functions.next_look(LOOK_EVERY).await {
            Ok(Some(id)) => id,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "it is not known what to look at");
                return false;
            }
        };
        let listing = old_objects(self.stores.artifacts.as_ref(), id);
        match tokio::time::timeout(SWEEP_TIME, listing).await {
            Ok(Ok(old)) => {
                if !old.is_empty() {
                    self.sweep(id, &old).await;
                }
                return true;
            }
            Ok(Err(error)) => tracing::warn!(function = %id, error = %Chain(&error),
                "it is not known what is stored of a function"),
            Err(_) => tracing::warn!(function = %id,
                "it takes too long to list what is stored of a function"),
        }
        false
    }

    /// Removes what is remembered and, of what is old, what may belong to no version.
    async fn sweep(&self, id: FunctionId, old: &[ArtifactKey]) {
        // Before it is asked what waits: what is remembered later may be of a later deploy.
        let (owner, mut bundles) = match self.remembered.lock().get(&id) {
            Some(known) if known.rest_until.is_some_and(|until| Instant::now() < until) => {
                (Some(known.owner), Bundles::new())
            }
            Some(known) => (Some(known.owner), known.bundles.clone()),
            None => (None, Bundles::new()),
        };
        let (mut stored, sources) = contents(old);
        stored.extend(bundles.keys().cloned());
        let sweep = Sweep {
            holder: Uuid::new_v4().to_string(),
            lease: SWEEP_LEASE,
            stored: stored.into_iter().collect(),
            sources: sources.into_iter().collect(),
        };
        // From before the lease begins.
        let begun = Since::now();
        let pruned = match self.stores.functions.prune(id, self.versions_kept, &sweep).await {
            Ok(pruned) => pruned,
            Err(error) => {
                tracing::warn!(function = %id, error = %Chain(&error),
                    "old versions were not removed");
                // It may have begun all the same.
                self.end(id, &sweep).await;
                return;
            }
        };
        // Of these it is not known yet what becomes of them.
        bundles
            .retain(|bundle, _| !pruned.kept.iter().any(|version| version.making.contains(bundle)));
        if pruned.is_swept {
            if self.remove_unreferenced(id, &pruned, &bundles, !old.is_empty(), begun).await {
                self.forget(id, &bundles);
                self.end(id, &sweep).await;
            } else if let Some(known) = self.remembered.lock().get_mut(&id) {
                known.rest_until = Some(Instant::now() + REST);
            }
        } else if !pruned.kept.is_empty() {
            // All of them are referred to.
            self.forget(id, &bundles);
        } else if let Some(owner) = owner {
            self.remove_deleted(owner, id, &bundles).await;
        }
    }

    /// Notes a bundle that a version in work is about to store, and returns when nobody removes it before
    /// the version has ended.
    pub(super) async fn settled(
        &self,
        id: FunctionId,
        version: u32,
        bundle: &BundleHash,
    ) -> Result<(), StoreError> {
        let functions = self.stores.functions.as_ref();
        functions.note_bundle(id, version, bundle).await?;
        unswept(functions, id).await
    }

    /// The functions of which something is remembered.
    pub(super) fn remembered(&self) -> Vec<FunctionId> {
        self.remembered.lock().keys().copied().collect()
    }

    /// Removes what is left of a function that is not there, if there is one that has not been for long.
    /// Whether there was, and it was done with.
    pub(super) async fn remove_remains(&self) -> bool {
        let functions = &self.stores.functions;
        let id = match functions.remains(REMAINS_AFTER).await {
            Ok(Some(id)) => id,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(error = %Chain(&error),
                    "it is not known of which functions objects remain");
                return false;
            }
        };
        // It comes up again if it is not done with.
        let removal = self.stores.artifacts.delete_function(id);
        let removed: Result<(), StoreError> = async {
            let removed = tokio::time::timeout(SWEEP_TIME, removal).await;
            removed.map_err(StoreError::unavailable)?.map_err(StoreError::unavailable)?;
            functions.forget_remains(id).await
        }
        .await;
        if let Err(error) = &removed {
            tracing::warn!(function = %id, error = %Chain(error),
                "objects of a function that is not there remain");
        }
        removed.is_ok()
    }

    /// Whether all of it is gone.
    async fn remove_unreferenced(
        &self,
        id: FunctionId,
        pruned: &Pruned,
        remembered: &Bundles,
        has_old: bool,
        begun: Since,
    ) -> bool {
        let mut left = objects(id, &pruned.removed);
        for hash in remembered.keys() {
            left.extend(of_bundle(id, hash));
        }
        for kept in objects(id, &pruned.kept).into_keys() {
            left.remove(&kept);
        }
        let removal = async {
            if has_old {
                left.extend(self.old_and_unreferenced(id, pruned).await);
            }
            self.delete_all(left).await
        };
        begun.within(SWEEP_TIME, removal).await.unwrap_or_else(|| {
            tracing::warn!(function = %id, "objects that no version refers to remain: no time is left");
            false
        })
    }

    /// What is old now that the sweep has begun: what was before may have been stored again since, for a
    /// version that is about to be accepted.
    async fn old_and_unreferenced(
        &self,
        id: FunctionId,
        pruned: &Pruned,
    ) -> Vec<(String, ArtifactKey)> {
        let mut old = match old_objects(self.stores.artifacts.as_ref(), id).await {
            Ok(old) => old,
            Err(error) => {
                // They are there at the next look.
                tracing::warn!(function = %id, error = %Chain(&error),
                    "objects that no version refers to may remain");
                return Vec::new();
            }
        };
        retain_unreferenced(&mut old, &pruned.kept);
        old.into_iter().map(|key| (key.to_string(), key)).collect()
    }

    /// Whether all of them are gone.
    async fn delete_all(&self, objects: BTreeMap<String, ArtifactKey>) -> bool {
        let artifacts = &self.stores.artifacts;
        let removals = stream::iter(objects).map(|(name, key)| async move {
            let removed = artifacts.delete(&key).await;
            if let Err(error) = &removed {
                tracing::warn!(
                    object = name,
                    error = %Chain(error),
                    "an object that no version refers to remains"
                );
            }
            removed.is_ok()
        });
        removals
            .buffer_unordered(REMOVALS_IN_PARALLEL)
            .fold(true, |all, is_removed| ready(all && is_removed))
            .await
    }

    async fn end(&self, id: FunctionId, sweep: &Sweep) {
        if let Err(error) = self.stores.functions.end_sweep(id, &sweep.holder).await {
            tracing::warn!(function = %id, error = %Chain(&error),
                "builds of a function wait although nothing is being removed any more");
        }
    }

    /// What was stored for a function after it was deleted, if it was.
    async fn remove_deleted(&self, owner: UserId, id: FunctionId, remembered: &Bundles) {
        match self.stores.functions.function(owner, id).await {
            Ok(Some(_)) => {}
            Ok(None) => match self.stores.artifacts.delete_function(id).await {
                Ok(()) => self.forget(id, remembered),
                Err(error) => tracing::warn!(function = %id, error = %Chain(&error),
                    "objects of a deleted function remain"),
            },
            Err(error) => tracing::warn!(function = %id, error = %Chain(&error),
                "it is not known whether a function is there"),
        }
    }

    fn forget(&self, id: FunctionId, bundles: &Bundles) {
        let mut remembered = self.remembered.lock();
        if let Entry::Occupied(mut known) = remembered.entry(id) {
            known.get_mut().bundles.retain(|hash, number| bundles.get(hash) != Some(&*number));
            if known.get().bundles.is_empty() {
                known.remove();
            }
        }
    }
}

/// What these versions refer to, by name.
fn objects(id: FunctionId, versions: &[StoredVersion]) -> BTreeMap<String, ArtifactKey> {
    let mut keys = BTreeMap::new();
    for version in versions {
        if let Some(source) = &version.source {
            let only_file = source.only_file.as_deref();
            let key = stored_under(id, source.version, &version.source_hash, only_file);
            keys.insert(key.to_string(), key);
        }
        for bundle in version.bundles() {
            keys.extend(of_bundle(id, bundle));
        }
    }
    keys
}

/// A bundle with its source map and the files beside it, by name.
fn of_bundle(function: FunctionId, hash: &BundleHash) -> [(String, ArtifactKey); 3] {
    [
        ArtifactKey::Bundle { function, hash: hash.clone() },
        ArtifactKey::SourceMap { function, hash: hash.clone() },
        ArtifactKey::Assets { function, hash: hash.clone() },
    ]
    .map(|key| (key.to_string(), key))
}
