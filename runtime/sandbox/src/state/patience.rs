//! Calls that wait in a busy worker, and are taken back from it.

use cloudserve_protocol::call::VersionKey;
use cloudserve_protocol::ids::UserId;

use super::{State, Todo};

impl State {
    /// Ticks of a call's patience; the one in which it came counts.
    pub(crate) const TICKS_OF_PATIENCE: u32 = 5;

    /// Takes back a call that waits in a worker. Whether it has not begun.
    pub(crate) fn revoke(
        &mut self,
        key: VersionKey,
        owner: UserId,
        worker: u64,
        call: u32,
        todo: &mut Todo,
    ) -> bool {
        let version = self.versions.get_mut(&key);
        let is_revoked = version.is_some_and(|version| version.lanes.revoke(worker, call));
        if is_revoked {
            self.calls_over(owner, 1);
            self.serve_held_up(owner, todo);
        }
        is_revoked
    }

    /// A tick is over: takes back the calls that have waited in a worker for so many that they are
    /// better run elsewhere. Whether any wait on. One clock for all of them: each call that waits
    /// would set a timer and stop it again a few microseconds later.
    pub(crate) fn take_back(&mut self, todo: &mut Todo) -> bool {
        self.tick += 1;
        let mut owners = Vec::new();
        if let Some(since) = self.tick.checked_sub(Self::TICKS_OF_PATIENCE.into()) {
            for version in self.versions.values_mut() {
                let count = version.lanes.take_back(since);
                if count > 0 {
                    owners.push((version.target.owner_id, count));
                }
            }
        }
        for (owner, count) in owners {
            self.calls_over(owner, count);
            self.serve_held_up(owner, todo);
        }
        self.is_ticking = self.versions.values().any(|version| version.lanes.waiting() > 0);
        self.is_ticking
    }
}
