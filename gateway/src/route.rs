//! What is served under a name: a bounded cache over the store.
//!
//! Invariant: a call that begins after a change was announced does not see the state before it.
//! Announced changes are applied at the start of every lookup, and an entry that was still being
//! loaded when a change came counts no more than a loaded one. Where no announcement reaches,
//! [`MAX_STALENESS`] bounds an entry's age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_identity::{SealError, Sealer};
use cloudserve_protocol::call::{Target, VersionKey};
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::{DeployStatus, Route, Visibility};
use cloudserve_store::{Change, ChangeFeed, Epochs, FunctionStore, StoreError, Subject};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::sync::broadcast::{self, error::TryRecvError};

use crate::path::RunPath;
use crate::quota::{Allowance, Allowances};

/// Oldest state the gateway acts on where no change feed reaches.
pub const MAX_STALENESS: Duration = Duration::from_secs(5);

/// The same for "no such function" and "not active": what people wait for to change.
const MAX_ABSENCE: Duration = Duration::from_secs(1);

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// The owner: everything.
    Owner,
    /// Everyone else: what is public.
    Stranger,
}

/// What a name means in a view.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// Nothing.
    Absent,
    /// A function that serves no version yet.
    Inactive {
        /// Which.
        id: FunctionId,
        /// Its only deploy failed.
        failed: bool,
    },
    /// A function and what to run, its environment opened; and what its owner may use.
    Active(Arc<Target>, Arc<Allowance>),
}

impl Entry {
    /// The function, if there is one.
    pub(crate) fn function_id(&self) -> Option<FunctionId> {
        match self {
            Self::Absent => None,
            Self::Inactive { id, .. } => Some(*id),
            Self::Active(target, _) => Some(target.function_id),
        }
    }
}

/// Why it is not known what a name means.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store failed.
    #[error("the function cannot be looked up")]
    Store(#[source] StoreError),
    /// The environment does not open.
    #[error("the function's environment cannot be opened")]
    Env(#[source] SealError),
}

/// A place in the cache. Empty while the first caller loads it and the others wait.
struct Slot {
    since: Instant,
    /// Of who made it. See [`Epochs`].
    epoch: u64,
    entry: OnceCell<Entry>,
}

impl Slot {
    fn new(epoch: u64) -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), epoch, entry: OnceCell::new() })
    }

    fn is_stale(&self) -> bool {
        let absent = !matches!(self.entry.get(), None | Some(Entry::Active(..)));
        absent && self.since.elapsed() > MAX_ABSENCE
    }

    /// Whether it may be taken by who asks in this epoch.
    fn holds(&self, epoch: u64, epochs: &Epochs) -> bool {
        // What was absent may be there now; what is being loaded may be read too early.
        let subject = || self.entry.get().and_then(Entry::function_id).map(Subject::Function);
        self.epoch >= epoch || subject().is_some_and(|subject| epochs.holds(self.epoch, [subject]))
    }
}

/// What a connection has asked for last, and what was found. Nearly every one asks for the same with
/// each request, which is compared in less time than it takes to look it up. What is kept here counts for
/// no longer than what is in the cache.
#[derive(Default)]
pub(crate) struct FoundLast(Mutex<Option<Found>>);

struct Found {
    view: View,
    key: String,
    entry: Entry,
    since: Instant,
    /// See [`Epochs`].
    epoch: u64,
}

impl FoundLast {
    fn recall(&self, view: View, key: &str, epoch: u64, now: Instant) -> Option<Entry> {
        let found = self.0.lock();
        let found = found.as_ref().filter(|found| {
            found.epoch == epoch
                && found.view == view
                && found.key == key
                && now.saturating_duration_since(found.since) < MAX_STALENESS
        })?;
        Some(found.entry.clone())
    }

    fn keep(&self, found: Found) {
        *self.0.lock() = Some(found);
    }
}

type Slots = Cache<String, Arc<Slot>>;

/// A version that is called by number.
struct Numbered {
    /// See [`Slot`].
    epoch: u64,
    /// `None`: there is no such version that was built.
    target: OnceCell<Option<Arc<Target>>>,
}

/// The cache.
pub(crate) struct Routes {
    functions: Arc<dyn FunctionStore>,
    sealer: Sealer,
    allowances: Arc<Allowances>,
    feed: Mutex<broadcast::Receiver<Change>>,
    epochs: Epochs,
    owners: Slots,
    strangers: Slots,
    versions: Cache<VersionKey, Arc<Numbered>>,
}

impl Routes {
    pub(crate) fn new(
        functions: Arc<dyn FunctionStore>,
        sealer: Sealer,
        allowances: Arc<Allowances>,
        changes: &dyn ChangeFeed,
        max_entries: u64,
    ) -> Self {
        let slots =
            || Cache::builder().max_capacity(max_entries).time_to_live(MAX_STALENESS).build();
        Self {
            functions,
            sealer,
            allowances,
            feed: Mutex::new(changes.subscribe()),
            epochs: Epochs::default(),
            owners: slots(),
            strangers: slots(),
            versions: Cache::builder()
                .max_capacity(max_entries)
                .time_to_live(MAX_STALENESS)
                .build(),
        }
    }

    /// What this path means to this viewer, who asks at `now` over a connection that has asked for this
    /// `last`.
    pub(crate) async fn find(
        &self,
        view: View,
        path: &RunPath<'_>,
        last: &FoundLast,
        now: Instant,
    ) -> Result<Entry, LoadError> {
        let epoch = self.apply_changes();
        if let Some(entry) = last.recall(view, path.key(), epoch, now) {
            return Ok(entry);
        }
        let slots = match view {
            View::Owner => &self.owners,
            View::Stranger => &self.strangers,
        };
        let slot = match slots.get(path.key()) {
            Some(slot) if slot.holds(epoch, &self.epochs) && !slot.is_stale() => slot,
            found => {
                // A name that cannot exist takes no place in the cache.
                if path.names().is_none() {
                    return Ok(Entry::Absent);
                }
                if found.is_some() {
                    slots.invalidate(path.key());
                }
                slots.get_with_by_ref(path.key(), || Slot::new(epoch))
            }
        };
        let entry = slot.entry.get_or_try_init(|| self.load(view, path)).await?.clone();
        if matches!(entry, Entry::Active(..)) {
            let (key, entry) = (path.key().to_owned(), entry.clone());
            last.keep(Found { view, key, entry, since: slot.since, epoch });
        }
        Ok(entry)
    }

    /// Another version of a function that is served.
    pub(crate) async fn version(
        &self,
        served: &Arc<Target>,
        version: u32,
    ) -> Result<Option<Arc<Target>>, LoadError> {
        let key = VersionKey { function_id: served.function_id, version };
        let subject = Subject::Function(key.function_id);
        let epoch = self.epochs.now();
        let slot = match self.versions.get(&key) {
            Some(slot) if self.epochs.holds(slot.epoch, [subject]) => slot,
            found => {
                if found.is_some() {
                    self.versions.invalidate(&key);
                }
                let new = || Arc::new(Numbered { epoch, target: OnceCell::new() });
                self.versions.get_with(key, new)
            }
        };
        slot.target.get_or_try_init(|| self.load_version(served, version)).await.cloned()
    }

    async fn load_version(
        &self,
        served: &Arc<Target>,
        version: u32,
    ) -> Result<Option<Arc<Target>>, LoadError> {
        let found = self.functions.version(served.owner_id, served.function_id, version).await;
        let found = found.map_err(LoadError::Store)?.filter(|version| {
            matches!(version.status, DeployStatus::Active | DeployStatus::Superseded)
        });
        let Some((version, built)) = found.and_then(|v| v.built.clone().map(|built| (v, built)))
        else {
            return Ok(None);
        };
        let env = self.sealer.open(served.function_id, &version.env).map_err(LoadError::Env)?;
        Ok(Some(Arc::new(Target {
            function_id: served.function_id,
            owner_id: served.owner_id,
            owner_name: served.owner_name.clone(),
            function_name: served.function_name.clone(),
            version: version.version,
            runtime_deps: built.runtime_deps().cloned(),
            bundle_hash: built.bundle_hash,
            limits: version.limits,
            env,
        })))
    }

    /// Says in which epoch the caller is.
    fn apply_changes(&self) -> u64 {
        let mut feed = self.feed.lock();
        // Nearly always it is: to receive nothing takes longer than to ask whether there is something.
        while !feed.is_empty() {
            match feed.try_recv() {
                Ok(Change::Function(id)) => self.epochs.change(Subject::Function(id)),
                Ok(Change::User(_)) | Err(TryRecvError::Lagged(_)) => self.epochs.change_all(),
                Ok(Change::ApiKey(_) | Change::Token | Change::DeploymentQueued) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.epochs.now()
    }

    async fn load(&self, view: View, path: &RunPath<'_>) -> Result<Entry, LoadError> {
        let Some((user, function)) = path.names() else { return Ok(Entry::Absent) };
        let found = self.functions.route(&user, &function).await.map_err(LoadError::Store)?;
        match found {
            Some(route) if view == View::Owner || route.visibility == Visibility::Public => {
                self.entry_of(route).await
            }
            _ => Ok(Entry::Absent),
        }
    }

    async fn entry_of(&self, route: Route) -> Result<Entry, LoadError> {
        let inactive =
            Entry::Inactive { id: route.function_id, failed: route.status == DeployStatus::Failed };
        let Some(version) = route.active else { return Ok(inactive) };
        let Some(built) = &version.built else { return Ok(inactive) };
        let env = self.sealer.open(route.function_id, &version.env).map_err(LoadError::Env)?;
        let allowance = self.allowances.of(route.owner_id, route.owner_quota).await;
        let allowance = allowance.map_err(LoadError::Store)?;
        let target = Arc::new(Target {
            function_id: route.function_id,
            owner_id: route.owner_id,
            owner_name: route.owner_name,
            function_name: route.function_name,
            version: version.version,
            bundle_hash: built.bundle_hash.clone(),
            runtime_deps: built.runtime_deps().cloned(),
            limits: version.limits,
            env,
        });
        Ok(Entry::Active(target, allowance))
    }
}
