//! Functions, their versions and the deploy queue.
//!
//! A **version** is immutable once built; a function points to the version it serves. A version
//! that is not yet built or failed *is* the deploy queue: there is no second record that could
//! disagree with it.
//!
//! ```text
//! accept -> pending -> claim -> deploying -> activate -> active   (or superseded)
//!                                         -> fail     -> failed
//! ```
//! The function's status is that of its newest version. What it serves is `active_version`.
//! `activate` moves it, and only forward; `rollback` moves it to any version that was built. A
//! rollback holds against the deploys accepted before it: they end superseded.

mod holdings;
mod source;

use std::time::Duration;

use async_trait::async_trait;
use cloudserve_protocol::build::CacheOutcome;
use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::ids::{
    BundleHash, DepHash, FunctionId, FunctionName, SourceHash, UserId, UserName,
};
use cloudserve_protocol::limits::Limits;
use serde::{Deserialize, Serialize};

pub(crate) use self::holdings::version_bytes;
pub use self::holdings::{HoldingBounds, Holdings};
pub(crate) use self::source::only;
pub use self::source::{ListedSource, Source, SourceFile};
use crate::account::Quota;
use crate::{StoreError, Timestamp};

/// Where a deploy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeployStatus {
    /// Accepted, waiting.
    Pending,
    /// Being built and loaded.
    Deploying,
    /// Built, loaded, served.
    Active,
    /// Given up; the error says why.
    Failed,
    /// Built, but a newer version was activated or a rollback asked for first.
    Superseded,
}

impl DeployStatus {
    /// Whether it waits or is in work: it has not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Deploying)
    }
}

/// Who may call a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Its owner, with a token or a key.
    #[default]
    Private,
    /// Everyone.
    Public,
}

/// Why a deploy failed, for the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployError {
    /// Stable code: `bundle_error`, `dependency_error`, `native_addon`, `startup_error`,
    /// `limit_exceeded`, `internal`.
    pub code: String,
    /// What went wrong, with file, line and column where there are any.
    pub message: String,
}

impl DeployError {
    /// Of a version whose record cannot be read. Left in the queue, it would keep out all that came later.
    pub(crate) fn unreadable() -> Self {
        Self {
            code: "internal".to_owned(),
            message: "the stored deploy is not readable; deploy again".to_owned(),
        }
    }
}

/// An environment encrypted with the master key and bound to its function. Opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealedEnv(pub Vec<u8>);

/// A function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Identity.
    pub id: FunctionId,
    /// Its owner.
    pub user_id: UserId,
    /// Unique per owner.
    pub name: FunctionName,
    /// Status of the newest version.
    pub status: DeployStatus,
    /// Why the newest version failed, if it did.
    pub deploy_error: Option<DeployError>,
    /// Number of the newest version.
    pub latest_version: u32,
    /// The version that is served.
    pub active_version: Option<u32>,
    /// Who may call it.
    pub visibility: Visibility,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When the active version was activated.
    pub deployed_at: Option<Timestamp>,
}

/// One version of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The function.
    pub function_id: FunctionId,
    /// Counts from 1.
    pub version: u32,
    /// Where it stands.
    pub status: DeployStatus,
    /// Why it failed, if it did.
    pub error: Option<DeployError>,
    /// What was deployed.
    pub source: Source,
    /// Hash of what was deployed.
    pub source_hash: SourceHash,
    /// Its environment.
    pub env: SealedEnv,
    /// Its bounds.
    pub limits: Limits,
    /// What the build made; `None` until then, unless it was known before.
    pub built: Option<BuiltVersion>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whether the function becomes public when this version is served. Only of one that waits or
    /// is in work.
    pub makes_public: bool,
}

/// What the build of a version made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltVersion {
    /// The bundle.
    pub bundle_hash: BundleHash,
    /// Its size.
    pub bundle_bytes: u64,
    /// That of its source map and of the files beside it, as they are stored.
    #[serde(default)]
    pub beside_bytes: u64,
    /// The dependency set, if there are dependencies.
    pub dep_hash: Option<DepHash>,
    /// Whether that set was there already.
    pub dependency_cache: Option<CacheOutcome>,
    /// Whether the bundle needs the dependency tree at run time.
    pub needs_tree: bool,
    /// How the handler is called.
    pub handler_kind: HandlerKind,
}

impl BuiltVersion {
    /// What it takes of storage, without the dependency tree, which is everybody's.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bundle_bytes.saturating_add(self.beside_bytes)
    }

    /// The dependency tree that is there at run time, if one is.
    #[must_use]
    pub fn runtime_deps(&self) -> Option<&DepHash> {
        self.dep_hash.as_ref().filter(|_| self.needs_tree)
    }
}

/// A function with the two versions that matter: the newest and, if another, the served one.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRecord {
    /// The function.
    pub function: Function,
    /// Its newest version.
    pub latest: Version,
    /// The version it serves.
    pub active: Option<Version>,
}

/// A function as a list shows it: without what may be large of its source, which is the lock file and
/// the names of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The function.
    pub function: Function,
    /// What its newest version was made of.
    pub source: ListedSource,
    /// Hash of that.
    pub source_hash: SourceHash,
    /// The environment of its newest version.
    pub env: SealedEnv,
    /// The bounds of its newest version.
    pub limits: Limits,
    /// What was built of its newest version; until then, of the one that is served.
    pub built: Option<BuiltVersion>,
}

impl From<FunctionRecord> for Listed {
    fn from(FunctionRecord { function, latest, active }: FunctionRecord) -> Self {
        Self {
            function,
            source: latest.source.into(),
            source_hash: latest.source_hash,
            env: latest.env,
            limits: latest.limits,
            built: latest.built.or_else(|| active.and_then(|active| active.built)),
        }
    }
}

/// A deploy that is to be accepted.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The function; a new identity for a new function.
    pub function_id: FunctionId,
    /// Its owner.
    pub user_id: UserId,
    /// Its name.
    pub name: FunctionName,
    /// One more than the newest version that was read; 1 for a new function.
    pub version: u32,
    /// The version whose source and build this one has, if it has those of the one that was served when
    /// that was read: no other may be served by now. One that is not served may be gone, with its objects.
    pub of_served: Option<u32>,
    /// New visibility; if `None` unchanged, of a new function private. A function that is there becomes
    /// private at once, but public only when this version is served, or a later one while this one
    /// waits: until then, and if it fails, what is served stays private.
    pub visibility: Option<Visibility>,
    /// What is deployed.
    pub source: Source,
    /// Its hash.
    pub source_hash: SourceHash,
    /// Its environment.
    pub env: SealedEnv,
    /// Its bounds.
    pub limits: Limits,
    /// What was built of the same source before: then nothing is to be built, and the version is
    /// only loaded before it is activated.
    pub built: Option<BuiltVersion>,
}

/// What the gateway needs to know of a function to serve it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The function.
    pub function_id: FunctionId,
    /// Its owner.
    pub owner_id: UserId,
    /// The owner's name.
    pub owner_name: UserName,
    /// What the owner may use.
    pub owner_quota: Quota,
    /// Its name.
    pub function_name: FunctionName,
    /// Who may call it.
    pub visibility: Visibility,
    /// Status of the newest version.
    pub status: DeployStatus,
    /// The version that is served, with `built` set; `None` before the first activation.
    pub active: Option<Served>,
}

/// What it takes to serve a version. Not its source, which may hold a large lock file.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// Its number.
    pub version: u32,
    /// Its environment.
    pub env: SealedEnv,
    /// Its bounds.
    pub limits: Limits,
    /// What the build made.
    pub built: Option<BuiltVersion>,
}

/// A version taken off the queue. The lease keeps others away; an expired one lets them in.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The function.
    pub function: Function,
    /// The version to build.
    pub version: Version,
    /// The owner's name.
    pub owner_name: UserName,
    /// How often it was claimed, this time included.
    pub attempt: u32,
}

/// Outcome of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The function serves this version now.
    Activated,
    /// A newer version was activated before, or a rollback came after its acceptance; it serves
    /// only if somebody goes back to it.
    Superseded,
    /// The function was deleted meanwhile.
    Gone,
}

/// Outcome of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// The function serves this version now.
    Moved,
    /// The version failed or is not built yet.
    NotBuilt,
    /// The account has no such function, or the function no such version.
    Unknown,
}

/// What of a version says which objects it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// Its number.
    pub version: u32,
    /// Hash of its source.
    pub source_hash: SourceHash,
    /// Where that is. Of a version that is left, only if a removed one may have the same.
    pub source: Option<StoredSource>,
    /// What the build made.
    pub built: Option<BuiltVersion>,
    /// While it waits or is in work: bundles that it may refer to in the end.
    pub making: Vec<BundleHash>,
}

impl StoredVersion {
    /// The bundles that it refers to, or may in the end.
    pub fn bundles(&self) -> impl Iterator<Item = &BundleHash> {
        self.built.iter().map(|built| &built.bundle_hash).chain(&self.making)
    }
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSource {
    /// The version under which its files are stored.
    pub version: u32,
    /// The path of its file, if it is one.
    pub only_file: Option<String>,
}

/// The removal of objects of a function that no version refers to.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Who removes them: no two sweeps have the same.
    pub holder: String,
    /// How long it may take. If nobody ends it, it is over then.
    pub lease: Duration,
    /// Bundles that are stored and may belong to no version.
    pub stored: Vec<BundleHash>,
    /// Sources of which the same is true.
    pub sources: Vec<SourceHash>,
}

/// The versions of a function that were removed and those that are left, each newest first. Both are
/// empty while another sweep is under way, and of a function that is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pruned {
    /// No longer there.
    pub removed: Vec<StoredVersion>,
    /// Still there.
    pub kept: Vec<StoredVersion>,
    /// Whether the sweep has begun: objects that none of `kept` refers to may be removed. If not, there
    /// are none.
    pub is_swept: bool,
}

/// The sealed environment of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedVersion {
    /// The function.
    pub function_id: FunctionId,
    /// Its version.
    pub version: u32,
    /// The environment.
    pub env: SealedEnv,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end. Opaque to callers.
    pub next: Option<String>,
}

/// Storage of functions.
#[async_trait]
pub trait FunctionStore: Send + Sync {
    /// [`Self::accept_within`], whatever the account has.
    async fn accept(&self, new: NewVersion) -> Result<FunctionRecord, StoreError> {
        self.accept_within(new, HoldingBounds::default()).await
    }

    /// Adds a version and, with version 1, its function, and queues it. `Conflict`: that version
    /// number or, for version 1, that name exists already, or another version is served than the one that
    /// it is of. `QueueFull`, `TooManyFunctions`, `TooManyBytes`: the account has what it may have. The
    /// source's objects are durable before this is called.
    async fn accept_within(
        &self,
        new: NewVersion,
        bounds: HoldingBounds,
    ) -> Result<FunctionRecord, StoreError>;

    /// What the account has.
    async fn holdings(&self, user_id: UserId) -> Result<Holdings, StoreError>;

    /// What deploys of the account have added to the dependency trees on this day (UTC), if it is the last
    /// on which they have.
    async fn trees_added(&self, user_id: UserId, day: i64) -> Result<u64, StoreError>;

    /// Notes that one has added a tree. A late one of the day before counts for nothing: what there is of
    /// the last day stays.
    async fn add_tree(&self, user_id: UserId, day: i64, bytes: u64) -> Result<(), StoreError>;

    /// A function of this account.
    async fn function(
        &self,
        user_id: UserId,
        id: FunctionId,
    ) -> Result<Option<FunctionRecord>, StoreError>;

    /// A function of this account, by name.
    async fn function_by_name(
        &self,
        user_id: UserId,
        name: &FunctionName,
    ) -> Result<Option<FunctionRecord>, StoreError>;

    /// The account's functions, newest first. `BadCursor`: no page of this list gave it.
    async fn functions(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<Listed>, StoreError>;

    /// The versions of a function of this account, newest first, at most `limit`: without their lock
    /// files, which may be large.
    async fn versions(
        &self,
        user_id: UserId,
        id: FunctionId,
        limit: u32,
    ) -> Result<Vec<Version>, StoreError>;

    /// One version of a function of this account.
    async fn version(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Option<Version>, StoreError>;

    /// Serves a version that was built before, and builds nothing. A superseded one becomes active.
    /// Versions accepted before this that are not yet built end superseded.
    async fn rollback(
        &self,
        user_id: UserId,
        id: FunctionId,
        version: u32,
    ) -> Result<Rollback, StoreError>;

    /// Removes what is beyond the newest `keep` versions that were built (at least 1), but never the
    /// served one nor those that wait or are in work, and beyond the newest five that failed. Begins the
    /// sweep if that, or what `sweep` names, leaves objects that no version refers to or makes. Does
    /// nothing while another sweep is under way.
    async fn prune(&self, id: FunctionId, keep: u32, sweep: &Sweep) -> Result<Pruned, StoreError>;

    /// The function at which nobody has looked for longest, for objects that none of its versions refers
    /// to: if that is so long ago, or longer. It is noted that somebody does now.
    async fn next_look(&self, age: Duration) -> Result<Option<FunctionId>, StoreError>;

    /// Ends the sweep of this holder, if it is under way.
    async fn end_sweep(&self, id: FunctionId, holder: &str) -> Result<(), StoreError>;

    /// Notes that a version in work is about to store this bundle and may refer to it in the end. Until it
    /// has ended, no sweep that begins from now on removes the bundle: one that is under way may.
    async fn note_bundle(
        &self,
        id: FunctionId,
        version: u32,
        bundle: &BundleHash,
    ) -> Result<(), StoreError>;

    /// Whether objects of the function may be removed in this moment.
    async fn is_swept(&self, id: FunctionId) -> Result<bool, StoreError>;

    /// Versions of all accounts whose environment is not empty, in the order of function and
    /// version, after the one named. For the rotation of the master key.
    async fn sealed_envs(
        &self,
        after: Option<(FunctionId, u32)>,
        limit: u32,
    ) -> Result<Vec<SealedVersion>, StoreError>;

    /// Replaces a sealed environment by the same one under another key. `false`: the version is
    /// gone, or its environment is no longer `old`.
    async fn replace_env(
        &self,
        id: FunctionId,
        version: u32,
        old: SealedEnv,
        new: SealedEnv,
    ) -> Result<bool, StoreError>;

    /// Changes who may call a function, at once. A version that waits no longer changes it.
    /// `false`: the account has no such function.
    async fn set_visibility(
        &self,
        user_id: UserId,
        id: FunctionId,
        visibility: Visibility,
    ) -> Result<bool, StoreError>;

    /// Removes a function, its versions and its logs, and notes that its objects are still there.
    /// Usage stays. `false`: the account has no such function.
    async fn delete_function(&self, user_id: UserId, id: FunctionId) -> Result<bool, StoreError>;

    /// Notes that objects are about to be stored of a function that is not there yet. The note is gone
    /// when it is accepted.
    async fn note_ahead(&self, id: FunctionId) -> Result<(), StoreError>;

    /// A function that is not there, and of which objects may be: that was noted so long ago, or longer.
    /// It is noted anew, so that nobody else is told of it for as long.
    async fn remains(&self, age: Duration) -> Result<Option<FunctionId>, StoreError>;

    /// Takes the note away: nothing of this function is stored any more.
    async fn forget_remains(&self, id: FunctionId) -> Result<(), StoreError>;

    /// What the gateway serves under this name.
    async fn route(
        &self,
        user_name: &UserName,
        function_name: &FunctionName,
    ) -> Result<Option<Route>, StoreError>;

    /// Takes the oldest version that is pending, or deploying under an expired lease, and marks
    /// it deploying: of accounts with nothing in work, if there is one, else of all. `holder` names
    /// the claiming process and task.
    async fn claim(&self, holder: &str, lease: Duration) -> Result<Option<Claimed>, StoreError>;

    /// Extends a lease. `false`: it is no longer held.
    async fn renew(
        &self,
        holder: &str,
        id: FunctionId,
        version: u32,
        lease: Duration,
    ) -> Result<bool, StoreError>;

    /// Ends a deploy well: stores what was built and, unless a newer version was active before or
    /// a rollback came after its acceptance, moves the pointer and makes the function public if
    /// that came with the version, or with one before it that still waits. Idempotent. `Conflict`: it
    /// was given up as failed before.
    async fn activate(
        &self,
        id: FunctionId,
        version: u32,
        built: BuiltVersion,
    ) -> Result<Activation, StoreError>;

    /// Ends a deploy badly. What is served does not change.
    async fn fail(
        &self,
        id: FunctionId,
        version: u32,
        error: DeployError,
    ) -> Result<(), StoreError>;
}
