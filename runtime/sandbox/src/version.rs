//! The workers of one version, and the calls that wait for them.

use std::collections::VecDeque;
use std::sync::Arc;

use cloudserve_protocol::call::Target;
use tokio::sync::oneshot;

use crate::state::{Granted, Refusal};
use crate::worker::Parked;

/// See the module.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) target: Arc<Target>,
    /// The one used last is at the end.
    pub(crate) idle: Parked,
    pub(crate) busy: usize,
    pub(crate) loading: usize,
    pub(crate) generation: u32,
    queue: VecDeque<Waiter>,
    impatient: usize,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    grant: oneshot::Sender<Granted>,
    is_impatient: bool,
}

impl Version {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            idle: Parked::new(),
            busy: 0,
            loading: 0,
            generation: 0,
            queue: VecDeque::new(),
            impatient: 0,
        }
    }

    /// Workers it has or is about to have.
    pub(crate) fn workers(&self) -> usize {
        self.idle.len() + self.busy + self.loading
    }

    /// Calls that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is nothing to remember of it.
    pub(crate) fn is_unused(&self) -> bool {
        self.workers() == 0 && self.queue.is_empty()
    }

    /// Boots the calls that wait are worth, those under way included.
    pub(crate) fn boots_wanted(&self) -> usize {
        let is_cold = self.workers() == 0 && !self.queue.is_empty();
        self.impatient.max(usize::from(is_cold))
    }

    /// A call waits from now on.
    pub(crate) fn join_queue(&mut self, ticket: u64) -> oneshot::Receiver<Granted> {
        let (grant, granted) = oneshot::channel();
        self.queue.push_back(Waiter { ticket, grant, is_impatient: false });
        granted
    }

    /// A call does not wait any more.
    pub(crate) fn leave_queue(&mut self, ticket: u64) {
        let at = self.queue.iter().position(|waiter| waiter.ticket == ticket);
        let left = at.and_then(|at| self.queue.remove(at));
        self.impatient -= usize::from(left.is_some_and(|waiter| waiter.is_impatient));
    }

    /// A call is impatient from now on. Whether it still waits.
    pub(crate) fn insist(&mut self, ticket: u64) -> bool {
        let waiter = self.queue.iter_mut().find(|waiter| waiter.ticket == ticket);
        let Some(waiter) = waiter else { return false };
        self.impatient += usize::from(!waiter.is_impatient);
        waiter.is_impatient = true;
        true
    }

    /// Gives an idle worker to the call that has waited longest. Whether there were both.
    pub(crate) fn grant_next(&mut self) -> bool {
        while !self.queue.is_empty() {
            let Some(worker) = self.idle.pop() else { return false };
            let Some(waiter) = self.next_waiter() else { return false };
            // What comes back is not wanted: the call gave up a moment ago.
            if let Err(Ok(worker)) = waiter.grant.send(Ok(worker)) {
                self.idle.push(worker);
            } else {
                self.busy += 1;
                return true;
            }
        }
        false
    }

    /// Tells the call that has waited longest that it gets no worker. Whether there was one.
    pub(crate) fn refuse_next(&mut self, refusal: Refusal) -> bool {
        let mut refusal = Err(refusal);
        while let Some(waiter) = self.next_waiter() {
            match waiter.grant.send(refusal) {
                Ok(()) => return true,
                Err(back) => refusal = back,
            }
        }
        false
    }

    fn next_waiter(&mut self) -> Option<Waiter> {
        let waiter = self.queue.pop_front()?;
        self.impatient -= usize::from(waiter.is_impatient);
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::call::Env;
    use cloudserve_protocol::ids::{BundleHash, FunctionId, UserId};
    use cloudserve_protocol::limits::Limits;

    use super::*;

    fn version() -> Version {
        Version::new(Arc::new(Target {
            function_id: FunctionId::new(),
            owner_id: UserId::new(),
            owner_name: "owner".parse().unwrap(),
            function_name: "function".parse().unwrap(),
            version: 1,
            bundle_hash: BundleHash::of(b""),
            runtime_deps: None,
            limits: Limits::default(),
            env: Env::default(),
        }))
    }

    #[test]
    fn a_cold_version_wants_one_worker_and_then_one_for_each_impatient_call() {
        let mut version = version();
        assert_eq!(version.boots_wanted(), 0);
        let _waiting: Vec<_> = (1..=5).map(|ticket| version.join_queue(ticket)).collect();
        assert_eq!(version.boots_wanted(), 1);
        version.loading = 1;
        assert_eq!(version.boots_wanted(), 0);
        for ticket in [1, 2, 2, 9] {
            version.insist(ticket);
        }
        assert_eq!(version.boots_wanted(), 2);
        version.leave_queue(1);
        version.leave_queue(4);
        assert_eq!((version.boots_wanted(), version.queued()), (1, 3));
    }

    #[test]
    fn refusals_go_to_who_still_waits_in_order() {
        let mut version = version();
        let gone = version.join_queue(1);
        let mut second = version.join_queue(2);
        let mut third = version.join_queue(3);
        version.insist(1);
        drop(gone);
        assert!(version.refuse_next(Refusal::Draining));
        assert!(matches!(second.try_recv(), Ok(Err(Refusal::Draining))));
        assert!(third.try_recv().is_err());
        assert_eq!(version.boots_wanted(), 1, "it is cold");
        assert!(!version.grant_next());
        assert_eq!(version.queued(), 1);
    }
}
