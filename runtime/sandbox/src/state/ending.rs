//! Which idle workers end: the least recently used to make room, the old, the worn, those that stay
//! busy without a call, and those of a retired version.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use cloudserve_protocol::ids::{FunctionId, UserId};

use super::State;
use crate::death::DeathCause;

/// A worker that was used this recently is not ended to refill the pool, only for a call.
const RECENT: Duration = Duration::from_secs(10);

impl State {
    /// Ends the least recently used idle worker of the account that holds most; one used just now
    /// only if `even_recent`. Says whether there was one.
    pub(super) fn end_least_recently_used(&mut self, even_recent: bool) -> bool {
        let mut held: HashMap<UserId, usize> = HashMap::new();
        for version in self.versions.values() {
            *held.entry(version.target.owner_id).or_default() += version.workers();
        }
        let oldest = self
            .versions
            .iter()
            .filter_map(|(key, version)| {
                let idle_since = version.idle.first()?.idle_since()?;
                let is_free = even_recent || idle_since.elapsed() >= RECENT;
                is_free.then_some((held[&version.target.owner_id], idle_since, *key))
            })
            .min_by_key(|(held, idle_since, _)| (Reverse(*held), *idle_since));
        let Some((.., key)) = oldest else { return false };
        if let Some(version) = self.versions.get_mut(&key) {
            version.idle.remove(0).end(DeathCause::Idle);
        }
        self.tidy(key);
        true
    }

    /// Ends workers that have been idle since before `horizon`, those that are worn, and those that
    /// are busy without a call.
    pub(crate) fn end_idle_since(&mut self, horizon: Instant) {
        for version in self.versions.values_mut() {
            let most_ms = self.idle_cpu_ms;
            version.idle.retain_mut(|worker| {
                let is_busy = worker.idle_cpu_ms() > most_ms;
                let busy = is_busy.then_some(DeathCause::CpuLimit);
                let cause = worker.process.reason_to_go().or(busy);
                if let Some(cause) = cause {
                    worker.process.kill(cause);
                }
                cause.is_none()
            });
            let n_old = version
                .idle
                .partition_point(|worker| worker.idle_since().is_some_and(|at| at <= horizon));
            version.idle.drain(..n_old).for_each(|worker| worker.end(DeathCause::Idle));
        }
        self.versions.retain(|_, version| !version.is_unused());
        self.users.retain(|_, user| {
            user.held_up.retain(|key| self.versions.contains_key(key));
            user.calls > 0 || !user.held_up.is_empty()
        });
    }

    /// Versions of this function below `version` are no longer wanted.
    pub(crate) fn retire_below(&mut self, function_id: FunctionId, below: u32) {
        for (key, version) in &mut self.versions {
            if key.function_id == function_id && key.version < below {
                version.generation += 1;
                version.lanes.close(None);
                version.idle.drain(..).for_each(|worker| worker.end(DeathCause::Redeployed));
            }
        }
        self.versions.retain(|_, version| !version.is_unused());
    }
}
