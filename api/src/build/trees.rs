//! Dependency trees that no version names any more, and what specifications were resolved to long ago.
//!
//! Trees are everybody's, so nobody knows when one is no longer needed: all that is stored of dependencies is
//! walked through once a day, by each server, and of each tree it is looked whether a version names it.
//! Builds use a tree before a version names it, and wait while it may be being removed
//! ([`super::pipeline`]). What specifications were resolved to is resolved again if it is not there.

use std::error::Error;
use std::time::{Duration, Instant};

use cloudserve_protocol::artifact::{ArtifactKey, ListedObject};
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::DepHash;
use cloudserve_store::Stores;
use futures::stream::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::leftovers::{SWEEP_LEASE, SWEEP_TIME};
use super::since::Since;
use crate::options::ApiOptions;

/// Objects that are looked at each time. A tree has two.
const MOST_OBJECTS: usize = 200;

/// How long after its start a server begins with the first: by then there are indexes.
const BEGIN_AFTER: Duration = Duration::from_mins(10);

/// How long it is kept what a specification was resolved to: it is taken again for a day.
const RESOLUTION_KEPT: Duration = Duration::from_hours(30 * 24);

type Failure = Box<dyn Error + Send + Sync>;

/// Removes them.
pub(super) struct Trees {
    stores: Stores,
    /// How long trees are kept that are not in use; `None`: for good.
    kept: Option<Duration>,
    look_every: Duration,
    place: Mutex<Place>,
}

/// How far it has come.
struct Place {
    after: Option<ArtifactKey>,
    /// Nothing is looked at before.
    rest_until: Instant,
}

impl Trees {
    pub(super) fn new(stores: Stores, options: &ApiOptions) -> Self {
        let look_every = options.tree_look();
        let rest_until = Instant::now() + look_every.min(BEGIN_AFTER);
        let place = Mutex::new(Place { after: None, rest_until });
        Self { stores, kept: options.tree_kept(), look_every, place }
    }

    /// Goes on a little, unless all of it was looked at not long ago. Where it is cut off it goes on the
    /// next time; a removal that was begun and not ended is over with its lease, and begun again a day later.
    pub(super) async fn look(&self) {
        let after = {
            let place = self.place.lock();
            if Instant::now() < place.rest_until {
                return;
            }
            place.after.clone()
        };
        if let Err(error) = self.go_on(after).await {
            tracing::warn!(error = %Chain(&*error),
                "dependency trees that no version names may remain");
        }
    }

    async fn go_on(&self, after: Option<ArtifactKey>) -> Result<(), Failure> {
        let listing = self.stores.artifacts.list_dependencies(after.as_ref()).take(MOST_OBJECTS);
        let listed: Vec<ListedObject> = timeout(SWEEP_TIME, listing.try_collect()).await??;
        let is_all = listed.len() < MOST_OBJECTS;
        let mut last: Option<DepHash> = None;
        for ListedObject { key, stored_at } in listed {
            let (done, after) = match key {
                ArtifactKey::DependencyTree { hash } | ArtifactKey::DependencyMetadata { hash } => {
                    let is_looked_at = last.as_ref() == Some(&hash);
                    let done = if is_looked_at { Ok(()) } else { self.look_at(&hash).await };
                    last = Some(hash.clone());
                    // Its last object.
                    (done, ArtifactKey::DependencyTree { hash })
                }
                ArtifactKey::Resolution { .. }
                    if stored_at.elapsed().unwrap_or_default() > RESOLUTION_KEPT =>
                {
                    (self.stores.artifacts.delete(&key).await.map_err(Failure::from), key)
                }
                key => (Ok(()), key),
            };
            // What failed, too: begun again at once, a removal would keep builds waiting on and on.
            self.place.lock().after = Some(after);
            done?;
        }
        if is_all {
            let rest_until = Instant::now() + self.look_every;
            *self.place.lock() = Place { after: None, rest_until };
        }
        Ok(())
    }

    /// Removes a tree if it has not been in use for long.
    async fn look_at(&self, hash: &DepHash) -> Result<(), Failure> {
        let Some(kept) = self.kept else { return Ok(()) };
        // From before the lease begins.
        let begun = Since::now();
        let trees = &self.stores.trees;
        let Some(lease) = trees.look_at_tree(hash, kept, SWEEP_LEASE).await? else { return Ok(()) };
        let removal = async {
            for key in [
                // The first to go: without it nobody takes the tree for stored.
                ArtifactKey::DependencyMetadata { hash: hash.clone() },
                ArtifactKey::DependencyTree { hash: hash.clone() },
            ] {
                self.stores.artifacts.delete(&key).await?;
            }
            trees.forget_tree(hash, lease).await?;
            Ok::<_, Failure>(())
        };
        begun.within(SWEEP_TIME, removal).await.ok_or("no time is left")??;
        tracing::info!(dep_hash = %hash, "removed a dependency tree that no version names");
        Ok(())
    }
}
