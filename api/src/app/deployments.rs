//! Deploys: what a new version is made of, and its acceptance.
//!
//! Everything a deploy does not say stays as it was in the newest version. Invariant: the source is
//! durable before the version is accepted, and what was accepted is finished whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudserve_identity::Principal;
use cloudserve_protocol::call::Env;
use cloudserve_protocol::ids::{FunctionId, FunctionName, SourceHash};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::function::{
    FunctionRecord, HoldingBounds, NewVersion, Source, SourceFile, Version, Visibility,
};
use cloudserve_store::{Change, StoreError};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Duration, Instant, timeout};

use super::ahead::StoredAhead;
use super::audit::Act;
use super::functions::Shown;
use super::limits::LimitsPatch;
use super::refusal::Refusal;
use super::uploads::Room;
use super::{App, access, detached};
use crate::build::dependencies::{Dependencies, PackageLock};
use crate::build::leftovers::ACCEPTED_WITHIN;
use crate::build::since::Since;
use crate::build::source::{SourceFiles, is_code, source_key, stored_under};

/// How often acceptance is tried again when others deploy the same function at the same time.
pub(super) const MAX_CONFLICTS: usize = 16;
/// How often a waiting request looks when nothing announced a change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// New files and what was learnt of them when they were received.
#[derive(Debug, Clone)]
pub(crate) struct NewSource {
    pub(crate) files: SourceFiles,
    pub(crate) listing: Vec<SourceFile>,
    pub(crate) hash: SourceHash,
    /// The file that exports the handler, if none is named.
    pub(crate) usual_entry: Option<String>,
    /// Whether it is code that came without a file name.
    pub(crate) is_unnamed: bool,
}

impl NewSource {
    /// The same; code without a name gets the one of the single file there was before.
    fn named_like(&self, previous: Option<&Source>) -> Self {
        let name = previous.filter(|_| self.is_unnamed).and_then(Source::only_file);
        let Some(name) = name else { return self.clone() };
        let files = self.files.renamed(name);
        // The hash of a single file is that of its bytes alone.
        Self {
            listing: files.listing(),
            files,
            hash: self.hash.clone(),
            usual_entry: Some(name.to_owned()),
            is_unnamed: false,
        }
    }
}

/// What a deploy says. `None`: as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deploy {
    pub(crate) source: Option<NewSource>,
    /// Empty: the one that was given is no longer.
    pub(crate) entry: Option<String>,
    pub(crate) dependencies: Option<Dependencies>,
    /// What else the `package.json` says of them that these are of.
    pub(crate) optional: Dependencies,
    pub(crate) overrides: Option<String>,
    pub(crate) package_lock: Option<PackageLock>,
    /// Whether the dependencies are of a `package.json`, which has its lock file beside it or none.
    pub(crate) has_manifest: bool,
    pub(crate) external: Option<Vec<String>>,
    pub(crate) env: Option<Env>,
    pub(crate) visibility: Option<Visibility>,
    pub(crate) limits: Option<LimitsPatch>,
    /// Whether version ranges are resolved again.
    pub(crate) refreshes_dependencies: bool,
    /// The room of what was sent: taken for as long as any of it is in memory.
    pub(crate) _room: Option<Arc<Room>>,
}

impl Deploy {
    /// Whether it changes nothing that is part of a version.
    fn is_visibility_only(&self) -> bool {
        self.source.is_none()
            && self.entry.is_none()
            && self.dependencies.is_none()
            && self.package_lock.is_none()
            && self.external.is_none()
            && self.env.is_none()
            && self.limits.is_none()
    }
}

/// A version that was accepted and the changes since.
pub(crate) struct Accepted {
    record: FunctionRecord,
    changes: Receiver<Change>,
}

impl Accepted {
    pub(super) fn new(record: FunctionRecord, changes: Receiver<Change>) -> Self {
        Self { record, changes }
    }

    pub(super) fn record(&self) -> &FunctionRecord {
        &self.record
    }
}

/// How a change of a function came out.
pub(crate) enum Changed {
    /// At once; no version was made.
    Done(Box<Shown>),
    /// A version is in the queue.
    Queued(Box<Accepted>),
}

/// Which function gets a version.
enum Subject {
    /// The one of this name; if there is none, a new one with this identity.
    Named { name: FunctionName, new_id: FunctionId },
    /// One that is there.
    Existing(FunctionId),
}

/// The function as it is now.
enum Base {
    New { id: FunctionId, name: FunctionName },
    There(Box<FunctionRecord>),
}

impl Base {
    /// Who may call it, or may when its newest version is served; `None` if a version before that, which
    /// still waits, may have a say.
    fn seen(&self) -> Option<Visibility> {
        match self {
            Self::New { .. } => Some(Visibility::Private),
            Self::There(record) => match (record.function.visibility, record.latest.status) {
                _ if record.latest.makes_public => Some(Visibility::Public),
                (Visibility::Private, status) if status.is_under_way() => None,
                (visibility, _) => Some(visibility),
            },
        }
    }
}

impl App {
    /// Deploys under this name: a new function, or a new version of the one that is there.
    pub(crate) async fn deploy(
        self: Arc<Self>,
        principal: Arc<Principal>,
        name: FunctionName,
        deploy: Deploy,
    ) -> Result<Accepted, Refusal> {
        access::may_deploy(&principal)?;
        let subject = Subject::Named { name, new_id: FunctionId::new() };
        self.accept_detached(principal, subject, deploy).await
    }

    /// Changes a function that is there.
    pub(crate) async fn update(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: FunctionId,
        deploy: Deploy,
    ) -> Result<Changed, Refusal> {
        access::may_deploy(&principal)?;
        if deploy.is_visibility_only() {
            let visibility = deploy
                .visibility
                .ok_or_else(|| Refusal::field("body", "names nothing that is to be changed"))?;
            access::may_use(&principal, id)?;
            let changed =
                detached(async move { self.set_visibility(&principal, id, visibility).await });
            return Ok(Changed::Done(Box::new(changed.await?)));
        }
        let subject = Subject::Existing(id);
        let accepted = self.accept_detached(principal, subject, deploy).await?;
        Ok(Changed::Queued(Box::new(accepted)))
    }

    /// Builds the newest source again.
    pub(crate) async fn redeploy(
        self: Arc<Self>,
        principal: Arc<Principal>,
        id: FunctionId,
        refreshes_dependencies: bool,
    ) -> Result<Accepted, Refusal> {
        access::may_deploy(&principal)?;
        let deploy = Deploy { refreshes_dependencies, ..Deploy::default() };
        self.accept_detached(principal, Subject::Existing(id), deploy).await
    }

    async fn accept_detached(
        self: Arc<Self>,
        principal: Arc<Principal>,
        subject: Subject,
        deploy: Deploy,
    ) -> Result<Accepted, Refusal> {
        detached(async move { self.accept(&principal, &subject, &deploy).await }).await
    }

    async fn find(&self, principal: &Principal, subject: &Subject) -> Result<Base, Refusal> {
        match subject {
            Subject::Existing(id) => {
                Ok(Base::There(Box::new(self.function(principal, *id).await?)))
            }
            Subject::Named { name, new_id } => {
                let functions = &self.stores.functions;
                let found = functions.function_by_name(principal.user_id, name).await?;
                if let Some(record) = found {
                    access::may_use(principal, record.function.id)?;
                    return Ok(Base::There(Box::new(record)));
                }
                let otherwise = "this API key is for chosen functions and may add none";
                access::may_use_all(principal, otherwise)?;
                Ok(Base::New { id: *new_id, name: name.clone() })
            }
        }
    }

    async fn accept(
        &self,
        principal: &Principal,
        subject: &Subject,
        deploy: &Deploy,
    ) -> Result<Accepted, Refusal> {
        let mut stored = Vec::new();
        let accepted = self.try_accept(principal, subject, deploy, &mut stored).await;
        for source in &stored {
            self.discard(principal, source).await;
        }
        accepted
    }

    /// Leaves in `stored` the sources that it has stored for nothing.
    async fn try_accept(
        &self,
        principal: &Principal,
        subject: &Subject,
        deploy: &Deploy,
        stored: &mut Vec<StoredAhead>,
    ) -> Result<Accepted, Refusal> {
        // Before anything is accepted: no change of it is missed.
        let changes = self.stores.changes.subscribe();
        let mut begun: Option<Since> = None;
        for _ in 0..MAX_CONFLICTS {
            let base = self.find(principal, subject).await?;
            let previous = match &base {
                Base::There(record) => Some(&record.latest.source),
                Base::New { .. } => None,
            };
            let source = deploy.source.as_ref().map(|source| source.named_like(previous));
            let deploy = Deploy { source, ..deploy.clone() };
            let mut new = self.compose(principal, &base, deploy.clone())?;
            if let Some(source) = &deploy.source {
                // Stored by an attempt before, for a version others were faster to make.
                let (id, only_file) = (new.function_id, new.source.only_file());
                let before = stored.iter().find(|before| {
                    stored_under(id, before.version, &source.hash, only_file) == before.key
                });
                if let Some(before) = before {
                    new.source.stored_version = before.version;
                } else {
                    if let Err(refusal) = self.check_room(&new).await {
                        self.still_holds(principal, subject, refusal).await?;
                        continue;
                    }
                    let version = new.source.stored_version;
                    let key = source_key(id, &new.source, &source.hash);
                    begun.get_or_insert_with(Since::now);
                    if matches!(base, Base::New { .. }) {
                        self.stores.functions.note_ahead(id).await?;
                    }
                    self.store_ahead(id, source, &key).await?;
                    stored.push(StoredAhead { id, version, key });
                }
            }
            let id = new.function_id;
            if begun.is_some_and(|begun| begun.elapsed() > ACCEPTED_WITHIN) {
                return Err(Refusal::internal("the source was stored for too long"));
            }
            match self.enqueue(new).await {
                Ok(record) => {
                    let used = source_key(id, &record.latest.source, &record.latest.source_hash);
                    stored.retain(|source| source.key != used);
                    let version = record.latest.version;
                    self.note(principal, Act::Deployed { id, version }).await;
                    let said = deploy.visibility.filter(|new| Some(*new) != base.seen());
                    if let Some(visibility) = said {
                        let with = record.latest.makes_public.then_some(version);
                        let act = Act::VisibilityChanged { id, visibility, with };
                        self.note(principal, act).await;
                    }
                    return Ok(Accepted { record, changes });
                }
                // Others of the account came in between.
                Err(
                    full @ (StoreError::QueueFull { .. }
                    | StoreError::TooManyFunctions { .. }
                    | StoreError::TooManyBytes { .. }),
                ) => self.still_holds(principal, subject, full.into()).await?,
                // Others were faster, or deleted it: look again.
                Err(StoreError::Conflict | StoreError::Missing | StoreError::Taken { .. }) => {}
                Err(error) => {
                    // It may have been accepted all the same. If not, they are removed when they are old.
                    stored.clear();
                    return Err(error.into());
                }
            }
        }
        Err(Refusal::Conflict)
    }

    /// Adds a version to the queue if the account may have one more, there and at all.
    pub(super) async fn enqueue(&self, new: NewVersion) -> Result<FunctionRecord, StoreError> {
        self.stores.functions.accept_within(new, self.holding_bounds()).await
    }

    /// Before files are stored: those of a deploy that is refused would stay.
    async fn check_room(&self, new: &NewVersion) -> Result<(), Refusal> {
        let held = self.stores.functions.holdings(new.user_id).await?;
        Ok(self.holding_bounds().admit(held, new)?)
    }

    /// Gives the refusal back, unless it is of one function more and others have made that one meanwhile:
    /// then this is to be a later version of it.
    async fn still_holds(
        &self,
        principal: &Principal,
        subject: &Subject,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let is_more = matches!(refusal, Refusal::TooManyFunctions { .. });
        let is_there = is_more && matches!(self.find(principal, subject).await?, Base::There(_));
        if is_there { Ok(()) } else { Err(refusal) }
    }

    fn holding_bounds(&self) -> HoldingBounds {
        let limits = &self.options.limits;
        HoldingBounds {
            queued: Some(self.options.deploys_queued_per_user),
            functions: limits.max_functions(),
            bytes: limits.max_stored_bytes(),
        }
    }

    fn compose(
        &self,
        principal: &Principal,
        base: &Base,
        mut deploy: Deploy,
    ) -> Result<NewVersion, Refusal> {
        let (function_id, name, version, previous) = match base {
            Base::New { id, name } => (*id, name.clone(), 1, None),
            Base::There(record) => {
                let function = &record.function;
                let version = function.latest_version + 1;
                (function.id, function.name.clone(), version, Some(&record.latest))
            }
        };
        let limits = previous.map_or_else(Limits::default, |version| version.limits);
        let limits = match deploy.limits.take() {
            Some(patch) => patch.apply(limits)?,
            None => limits,
        };
        let env = match (&deploy.env, previous) {
            (Some(env), _) => self.sealer.seal(function_id, env)?,
            // While the master key is rotated, a copy would need the old one for good.
            (None, Some(version)) => self.sealer.renew(function_id, &version.env)?,
            (None, None) => self.sealer.seal(function_id, &Env(BTreeMap::new()))?,
        };
        let visibility = deploy.visibility;
        let source_hash = match (&deploy.source, previous) {
            (Some(source), _) => source.hash.clone(),
            (None, Some(version)) => version.source_hash.clone(),
            (None, None) => return Err(Refusal::field("code", "is missing (or files)")),
        };
        let source = compose_source(version, deploy, previous)?;
        Ok(NewVersion {
            function_id,
            user_id: principal.user_id,
            name,
            version,
            of_served: None,
            visibility,
            source,
            source_hash,
            env,
            limits,
            built: None,
        })
    }

    /// The function as it is right after acceptance.
    pub(crate) async fn shown(&self, accepted: Accepted) -> Result<Shown, Refusal> {
        self.with_stats(accepted.record).await
    }

    /// Waits until the accepted version has ended, however it did, and shows the function as that
    /// version left it. `false`: it has not ended yet, and this is enough of waiting.
    pub(crate) async fn wait(
        &self,
        principal: &Principal,
        accepted: Accepted,
    ) -> Result<(Shown, bool), Refusal> {
        let (record, has_ended) = self.ended(principal, accepted).await?;
        Ok((self.with_stats(record).await?, has_ended))
    }

    /// The function as the accepted version left it, once that has ended or it was enough of
    /// waiting.
    pub(super) async fn ended(
        &self,
        principal: &Principal,
        accepted: Accepted,
    ) -> Result<(FunctionRecord, bool), Refusal> {
        let Accepted { record, changes } = accepted;
        let (id, version) = (record.function.id, record.latest.version);
        self.ended_within(principal, id, version, changes, self.options.deploy_wait()).await
    }

    /// The same for any version that is there, with the changes since before it was looked for.
    pub(super) async fn ended_within(
        &self,
        principal: &Principal,
        id: FunctionId,
        version: u32,
        mut changes: Receiver<Change>,
        patience: Duration,
    ) -> Result<(FunctionRecord, bool), Refusal> {
        let deadline = Instant::now() + patience;
        loop {
            let record = self.function_at(principal, id, version).await?;
            let has_ended = !record.latest.status.is_under_way();
            if has_ended || Instant::now() >= deadline {
                return Ok((record, has_ended));
            }
            // Whether a change or the clock ends the wait makes no difference.
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = timeout(LOOK_AGAIN.min(left), changed(&mut changes, id)).await;
        }
    }

    /// The function, with this version in the place of the newest.
    async fn function_at(
        &self,
        principal: &Principal,
        id: FunctionId,
        version: u32,
    ) -> Result<FunctionRecord, Refusal> {
        let mut record = self.function(principal, id).await?;
        if record.latest.version == version {
            return Ok(record);
        }
        let served = record.active.as_ref().filter(|active| active.version == version);
        let mut wanted = served.cloned();
        if wanted.is_none() {
            wanted = self.stores.functions.version(principal.user_id, id, version).await?;
            // Read after it: if it has come to be served meanwhile, that is told with it.
            record = self.function(principal, id).await?;
        }
        if let Some(wanted) = wanted {
            record.function.status = wanted.status;
            record.function.deploy_error.clone_from(&wanted.error);
            record.function.latest_version = version;
            record.latest = wanted;
        }
        Ok(record)
    }
}

fn compose_source(
    version: u32,
    deploy: Deploy,
    previous: Option<&Version>,
) -> Result<Source, Refusal> {
    let old = previous.map(|version| &version.source);
    let (stored_version, files, usual_entry) = match (deploy.source, old) {
        (Some(new), _) => (version, new.listing, new.usual_entry),
        (None, Some(old)) => (old.stored_version, old.files.clone(), Some(old.entry.clone())),
        (None, None) => return Err(Refusal::field("code", "is missing (or files)")),
    };
    let is_there = |entry: &str| files.iter().any(|file| file.path == entry);
    // One that was given holds for as long as its file is there; one that was found is the last resort.
    let before = old.filter(|old| is_there(&old.entry));
    let is_taken_back = deploy.entry.as_deref() == Some("");
    let given = deploy.entry.filter(|_| !is_taken_back);
    let was_given = !is_taken_back && before.is_some_and(|old| old.entry_is_given);
    let entry_is_given = given.is_some() || was_given;
    let entry = match given {
        Some(entry) if !is_there(&entry) => {
            return Err(Refusal::field("entry", "is none of the files"));
        }
        Some(entry) if !is_code(&entry) => {
            return Err(Refusal::field("entry", "must be JavaScript or TypeScript"));
        }
        Some(entry) => entry,
        None => {
            let before = before.map(|old| old.entry.clone());
            let found = if entry_is_given { before } else { usual_entry.or(before) };
            found.ok_or_else(|| {
                Refusal::field(
                    "entry",
                    "is needed: there is no index, handler or main file of JavaScript or \
                     TypeScript",
                )
            })?
        }
    };
    // A lock file is of one set of dependencies, as is what else a `package.json` says of them.
    let is_of_same = |old: &&Source| match &deploy.dependencies {
        Some(Dependencies(new)) => !deploy.has_manifest && *new == old.dependencies,
        None => true,
    };
    let package_lock = match deploy.package_lock {
        Some(PackageLock(lock)) => Some(lock),
        None => old.filter(is_of_same).and_then(|old| old.package_lock.clone()),
    };
    let (optional_dependencies, overrides) = match old.filter(is_of_same) {
        Some(old) => (old.optional_dependencies.clone(), old.overrides.clone()),
        None => (deploy.optional.0, deploy.overrides),
    };
    let kept = || old.map(|old| old.dependencies.clone()).unwrap_or_default();
    Ok(Source {
        stored_version,
        entry,
        entry_is_given,
        files,
        dependencies: deploy.dependencies.map_or_else(kept, |Dependencies(new)| new),
        optional_dependencies,
        overrides,
        external: deploy
            .external
            .unwrap_or_else(|| old.map(|old| old.external.clone()).unwrap_or_default()),
        package_lock,
        refresh_dependencies: deploy.refreshes_dependencies,
    })
}

/// Returns when this function changed, or may have.
async fn changed(changes: &mut Receiver<Change>, id: FunctionId) {
    loop {
        match changes.recv().await {
            Ok(Change::Function(of)) if of == id => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
