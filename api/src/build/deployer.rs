//! Takes accepted versions off the durable queue and makes them served.
//!
//! A version is held under a lease that is renewed while it is worked on: who dies loses it and
//! another goes on. Invariants: what is served changes only by `activate`, after the version was
//! loaded once; a version is tried a bounded number of times.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cloudserve_artifacts::Cache;
use cloudserve_identity::Sealer;
use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::build::DependencyBuilder;
use cloudserve_protocol::call::VersionLoader;
use cloudserve_protocol::fault::Chain;
use cloudserve_protocol::ids::FunctionId;
use cloudserve_store::function::{Activation, BuiltVersion, Claimed, DeployError};
use cloudserve_store::{Change, StoreError, Stores};
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::leftovers::Leftovers;
use super::pipeline::{DIRECTORY_PREFIX, Failure, Pipeline};
use super::trees::Trees;
use crate::options::ApiOptions;

/// How often it is looked for what is left of functions that are not there, of others, and of trees.
const REMAINS_EVERY: Duration = Duration::from_mins(1);

/// Functions that are looked at each time.
const MOST_LOOKS: usize = 100;

/// Works on the queue.
pub(crate) struct Deployer {
    options: Arc<ApiOptions>,
    stores: Stores,
    loader: Arc<dyn VersionLoader>,
    leftovers: Arc<Leftovers>,
    trees: Trees,
    pipeline: Pipeline,
    /// There is nothing to deploy just now.
    idle: Notify,
}

impl Deployer {
    pub(crate) fn new(
        options: Arc<ApiOptions>,
        stores: Stores,
        sealer: Sealer,
        builder: Arc<dyn DependencyBuilder>,
        loader: Arc<dyn VersionLoader>,
        cache: Arc<Cache>,
    ) -> Self {
        let leftovers = Arc::new(Leftovers::new(stores.clone(), options.limits.versions_kept));
        let pipeline = Pipeline::new(
            &options,
            &stores,
            sealer,
            builder,
            loader.clone(),
            cache,
            leftovers.clone(),
        );
        let trees = Trees::new(stores.clone(), &options);
        Self { options, stores, loader, leftovers, trees, pipeline, idle: Notify::new() }
    }

    /// Works until `shutdown`, then finishes what it has begun, for a bounded time. What is not
    /// finished by then stays in the queue, and what is not removed where it is.
    pub(crate) async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let work_dir = self.options.work_dir.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare(&work_dir)).await;
        if let Err(error) = prepared.map_err(io::Error::other).and_then(|done| done) {
            tracing::error!(error = %Chain(&error), "the work directory is not usable");
        }
        let (stop, stopping) = watch::channel(false);
        let process = Uuid::new_v4();
        let workers = (0..self.options.deploys_in_parallel.max(1)).map(|n| {
            let (this, stopping) = (self.clone(), stopping.clone());
            let holder = format!("{process}/{n}");
            tokio::spawn(async move { this.keep_working(&holder, &stopping).await })
        });
        let workers: Vec<_> = workers.collect();
        let keeper = {
            let (this, stopping) = (self.clone(), stopping.clone());
            tokio::spawn(async move { this.keep_house(&stopping).await })
        };
        shutdown.await;
        stop.send_replace(true);
        join_all(workers.into_iter().chain([keeper])).await;
    }

    /// Works, and goes on after a panic: nobody would be at the queue, and the process look alive.
    async fn keep_working(&self, holder: &str, stopping: &watch::Receiver<bool>) {
        while AssertUnwindSafe(self.work(holder, stopping.clone())).catch_unwind().await.is_err() {
            tracing::error!("a builder panicked and goes on");
            tokio::time::sleep(self.options.queue_poll()).await;
        }
    }

    /// The same for what deploys leave.
    async fn keep_house(&self, stopping: &watch::Receiver<bool>) {
        while AssertUnwindSafe(self.clean(stopping.clone())).catch_unwind().await.is_err() {
            tracing::error!("whoever removes what deploys leave panicked and goes on");
            tokio::time::sleep(self.options.queue_poll()).await;
        }
    }

    /// Removes what deploys have left when there are none, and what functions have left that are gone.
    /// Builders do not wait for it: it may take long.
    async fn clean(&self, mut stopping: watch::Receiver<bool>) {
        let mut look_at_remains = tokio::time::interval(REMAINS_EVERY);
        while !*stopping.borrow() {
            tokio::select! {
                _ = look_at_remains.tick() => {
                    tokio::select! {
                        () = self.remove_remains() => {}
                        // The store knows of them: they are removed another time.
                        () = stopped(&mut stopping) => {}
                    }
                    self.look_at_functions(&mut stopping).await;
                    tokio::select! {
                        () = self.trees.look() => {}
                        () = stopped(&mut stopping) => {}
                    }
                }
                () = self.idle.notified() => {
                    for id in self.leftovers.remembered() {
                        if *stopping.borrow() {
                            break;
                        }
                        self.remove(id, &mut stopping).await;
                    }
                }
                changed = stopping.changed() => if changed.is_err() {
                    // Nobody can say it any more: the process ends.
                    return;
                },
            }
        }
    }

    async fn remove_remains(&self) {
        while self.leftovers.remove_remains().await {}
    }

    /// Removes what nobody refers to of those functions that were not looked at for long.
    async fn look_at_functions(&self, stopping: &mut watch::Receiver<bool>) {
        for _ in 0..MOST_LOOKS {
            if *stopping.borrow() {
                return;
            }
            let has_looked = tokio::select! {
                has_looked = self.leftovers.look() => has_looked,
                () = self.out_of_time(stopping) => false,
            };
            if !has_looked {
                return;
            }
        }
    }

    /// Removes what deploys of this function have left, unless the shutdown has waited for it for long
    /// enough.
    async fn remove(&self, id: FunctionId, stopping: &mut watch::Receiver<bool>) {
        tokio::select! {
            () = self.leftovers.remove(id) => {}
            () = self.out_of_time(stopping) => {}
        }
    }

    async fn out_of_time(&self, stopping: &mut watch::Receiver<bool>) {
        stopped(stopping).await;
        tokio::time::sleep(self.options.drain()).await;
    }

    async fn work(&self, holder: &str, mut stopping: watch::Receiver<bool>) {
        let mut changes = self.stores.changes.subscribe();
        while !*stopping.borrow() {
            match self.stores.functions.claim(holder, self.options.lease()).await {
                Ok(Some(claimed)) => {
                    self.deploy(holder, &claimed, &mut stopping).await;
                    // However it ended: a function whose deploys all fail would keep every one.
                    self.remove(claimed.version.function_id, &mut stopping).await;
                }
                Ok(None) => {
                    self.idle.notify_one();
                    tokio::select! {
                        () = queued(&mut changes) => {}
                        () = tokio::time::sleep(self.options.queue_poll()) => {}
                        _ = stopping.changed() => {}
                    }
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the deploy queue is not there");
                    tokio::time::sleep(self.options.queue_poll()).await;
                }
            }
        }
    }

    /// Works on one version until it has ended or is someone else's.
    async fn deploy(&self, holder: &str, claimed: &Claimed, stopping: &mut watch::Receiver<bool>) {
        let (id, version) = (claimed.version.function_id, claimed.version.version);
        let lease = self.options.lease();
        let functions = &self.stores.functions;
        let renew = || functions.renew(holder, id, version, lease);
        let is_ending = AtomicBool::new(false);
        let mut is_held = true;
        let mut attempt = pin!(self.attempt(holder, claimed, &is_ending));
        let mut renewal = tokio::time::interval(lease / 3);
        renewal.tick().await;
        let mut out_of_time = pin!(self.out_of_time(stopping));
        loop {
            tokio::select! {
                () = &mut attempt => return,
                _ = renewal.tick(), if is_held => match renew().await {
                    Ok(true) => {}
                    // Its own end may be stored by now, and what comes after that is still to be done.
                    Ok(false) if is_ending.load(Relaxed) => is_held = false,
                    Ok(false) => {
                        tracing::warn!(function = %id, version, "a deploy was taken over");
                        return;
                    }
                    // The lease holds for a while without.
                    Err(error) => tracing::warn!(
                        function = %id, version, error = %Chain(&error),
                        "a lease was not renewed"
                    ),
                },
                () = &mut out_of_time => {
                    tracing::info!(function = %id, version, "a deploy stays in the queue");
                    self.put_back(holder, claimed, Duration::ZERO).await;
                    return;
                }
            }
        }
    }

    /// Sets `is_ending` when it is made and its end is about to be stored.
    async fn attempt(&self, holder: &str, claimed: &Claimed, is_ending: &AtomicBool) {
        let begun = Instant::now();
        let (id, version) = (claimed.version.function_id, claimed.version.version);
        let is_last = claimed.attempt >= self.options.deploy_attempts;
        let made = if claimed.attempt > self.options.deploy_attempts {
            // Earlier attempts did not even end.
            Err(Failure::Transient("every attempt ended the process or lost its lease".into()))
        } else {
            // A version that makes us panic must not end the worker.
            AssertUnwindSafe(self.pipeline.make(claimed))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(Failure::Transient("the build panicked".into())))
        };
        is_ending.store(true, Relaxed);
        let ended = match made {
            Ok(built) => self.activate(claimed, built).await,
            Err(Failure::Final(error)) => {
                tracing::info!(function = %id, version, code = error.code, "deploy failed");
                self.stores.functions.fail(id, version, error).await
            }
            Err(Failure::Transient(error)) if is_last => {
                tracing::error!(function = %id, version, error = %Chain(&*error),
                    "deploy given up");
                let error = DeployError {
                    code: "internal".to_owned(),
                    message: "the deploy could not be finished; deploy again".to_owned(),
                };
                self.stores.functions.fail(id, version, error).await
            }
            Err(Failure::Transient(error)) => {
                tracing::warn!(function = %id, version, attempt = claimed.attempt,
                    error = %Chain(&*error), "deploy is tried again");
                let later = self.options.deploy_retry(claimed.attempt);
                self.put_back(holder, claimed, later).await;
                return;
            }
        };
        match ended {
            Ok(()) => tracing::info!(
                function = %id, version, attempt = claimed.attempt,
                ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "deploy ended"
            ),
            // Its lease runs out and it is tried again.
            Err(error) => tracing::error!(function = %id, version, error = %Chain(&error),
                "the end of a deploy was not stored"),
        }
    }

    async fn activate(&self, claimed: &Claimed, built: BuiltVersion) -> Result<(), StoreError> {
        let (id, version) = (claimed.version.function_id, claimed.version.version);
        let hash = built.bundle_hash.clone();
        let bundle = ArtifactKey::Bundle { function: id, hash };
        if !self.stores.artifacts.exists(&bundle).await.map_err(StoreError::unavailable)? {
            // Gone with the function, or replaced before this was accepted with it.
            let owner = claimed.function.user_id;
            if self.stores.functions.function(owner, id).await?.is_some() {
                return Err(StoreError::unavailable("the bundle is gone"));
            }
        }
        match self.stores.functions.activate(id, version, built).await {
            Ok(Activation::Activated) => self.loader.retire_below(id, version),
            Ok(Activation::Superseded) => self.loader.retire_below(id, version + 1),
            Ok(Activation::Gone) => {
                self.loader.retire_below(id, u32::MAX);
                // Written after the deletion had removed what was there then.
                if let Err(error) = self.stores.artifacts.delete_function(id).await {
                    tracing::warn!(function = %id, error = %Chain(&error),
                        "objects of a deleted function remain");
                }
            }
            // Given up by another and told to the owner; by now it may be too old to be kept.
            Err(StoreError::Conflict | StoreError::Missing) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Lets the version be claimed again after this long.
    async fn put_back(&self, holder: &str, claimed: &Claimed, later: Duration) {
        let (id, version) = (claimed.version.function_id, claimed.version.version);
        if let Err(error) = self.stores.functions.renew(holder, id, version, later).await {
            tracing::warn!(function = %id, version, error = %Chain(&error),
                "a deploy is tried again only when its lease has run out");
        }
    }
}

/// Returns when everything has to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that nobody can say so any more: the process ends.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Returns when a deploy was queued, or may have been.
async fn queued(changes: &mut Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::DeploymentQueued) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Makes the work directory and removes what builds of an earlier process left there.
fn prepare(work_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(work_dir)?;
    for entry in std::fs::read_dir(work_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
