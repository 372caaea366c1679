//! Boots of versions: what is ordered, under way, and comes of it.

use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::call::{Target, VersionKey};
use cloudserve_protocol::ids::UserId;
use tokio::sync::oneshot;

use super::{Refusal, State, Todo};
use crate::boot::BootFailure;
use crate::pool::{ANSWERS_WITHIN, LOADS_WITHIN, Provided};
use crate::version::Version;
use crate::worker::Worker;

impl State {
    /// A boot of this version begins that no waiting call asked for. Refused while draining.
    #[must_use]
    pub(crate) fn order_boot(&mut self, target: &Arc<Target>) -> bool {
        if self.is_draining {
            return false;
        }
        let version =
            self.versions.entry(target.key()).or_insert_with(|| Version::new(target.clone()));
        version.loading += 1;
        true
    }

    /// The generation a worker that is being assigned belongs to.
    pub(crate) fn generation(&self, key: VersionKey) -> u32 {
        self.versions.get(&key).map_or(0, |version| version.generation)
    }

    /// Whether a call waits for this version.
    pub(crate) fn is_wanted(&self, key: VersionKey) -> bool {
        self.versions.get(&key).is_some_and(|version| version.queued() > 0)
    }

    /// Whether a worker is on its way for the calls that wait for this version.
    pub(crate) fn is_loading(&self, key: VersionKey) -> bool {
        self.versions.get(&key).is_some_and(|version| version.loading > 0)
    }

    /// A READY worker, or a place in the line for the next.
    pub(crate) fn take_ready(
        &mut self,
        owner: UserId,
        todo: &mut Todo,
    ) -> Result<Box<Worker>, oneshot::Receiver<Provided>> {
        let taken = self.pool.take(owner);
        self.refill_after(LOADS_WITHIN, todo);
        taken
    }

    /// Refills the pool when so much time has passed; now, if it cannot wait.
    fn refill_after(&mut self, time: Duration, todo: &mut Todo) {
        if self.pool.rest(time) {
            todo.refill_in = Some(time);
        } else {
            self.refill(todo);
        }
    }

    /// A worker has loaded this version, which was ordered with [`State::order_boot`] or by
    /// [`State::admit`].
    pub(crate) fn loaded(&mut self, worker: Box<Worker>, todo: &mut Todo) {
        let Some(key) = worker.assigned.as_ref().map(|a| a.target.key()) else { return };
        if let Some(version) = self.versions.get_mut(&key) {
            version.loading -= 1;
        }
        self.settle(worker, todo);
        self.refill_after(ANSWERS_WITHIN, todo);
    }

    /// The task of a boot is gone: it has panicked, or the runtime is going down. Nothing is ordered in its
    /// place, which such a runtime would drop at once, and so on without end; calls that wait ask again.
    pub(crate) fn boot_lost(&mut self, key: VersionKey) {
        if let Some(version) = self.versions.get_mut(&key) {
            version.loading -= 1;
        }
    }

    /// A boot has ended without a worker. When nothing else is under way, the calls that wait are
    /// refused, all of them, since they would meet the same end one after the other. Else they have
    /// other workers to wait for, and one that wanted this one waits for those; unless none is about
    /// to come and the function is to blame, which its caller is told.
    pub(crate) fn boot_failed(
        &mut self,
        key: VersionKey,
        failure: Option<&Arc<BootFailure>>,
        todo: &mut Todo,
    ) {
        let Some(version) = self.versions.get_mut(&key) else { return };
        version.loading -= 1;
        if let Some(failure) = failure {
            if failure.started {
                version.failed();
            }
            if version.workers() == 0 {
                while version.refuse_next(Refusal::Boot(failure.clone())) {}
            } else if version.loading == 0 && failure.started {
                version.refuse_next(Refusal::Boot(failure.clone()));
            } else {
                version.calm();
            }
        }
        self.serve_queue(key, todo);
        self.refill(todo);
    }
}
