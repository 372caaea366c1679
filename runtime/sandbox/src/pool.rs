//! The pool of READY workers, and the boots that stand in line for one.
//!
//! In the line accounts take turns: one that wants many workers at once holds up nobody else.
//!
//! Processes are ordered to refill the pool and to serve the line, a few at a time. Starts that
//! fail pause the orders, longer each time; after a few failures in a row nobody is kept waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudserve_protocol::ids::UserId;
use tokio::sync::oneshot;

use crate::attend::attend;
use crate::death::DeathCause;
use crate::options::SandboxOptions;
use crate::turns::Turns;
use crate::worker::{Parked, Worker};

/// After this many failed starts in a row nobody is kept waiting for the next attempt.
const HOPELESS_STARTS: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// So long the pool may rest while a worker that it gave away loads its function, and so long when it has:
/// a call waits for most of them.
pub(crate) const LOADS_WITHIN: Duration = Duration::from_millis(50);
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_millis(5);

/// A READY worker, or why there is none.
pub(crate) type Provided = Result<Box<Worker>, Arc<str>>;

/// What [`Pool::order`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// So many processes are to be started.
    Start(usize),
    /// A process is wanted, but there are as many as there may be. An idle worker must go, however
    /// recently it was used if somebody waits.
    MakeRoom { somebody_waits: bool },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    parallel_starts: usize,
    max_processes: usize,
    longest_pause: Duration,
    ready: Parked,
    line: Turns<UserId, oneshot::Sender<Provided>>,
    starting: usize,
    /// Processes that exist or are being made; one that was ended counts until it is gone.
    processes: usize,
    /// Processes that were ended to make room and are not gone yet.
    leaving: usize,
    has_started: bool,
    failed_starts: u32,
    not_before: Option<Instant>,
    rests_until: Option<Instant>,
    last_failure: Option<Arc<str>>,
    is_closed: bool,
}

impl Pool {
    pub(crate) fn new(options: &SandboxOptions) -> Self {
        let max_processes = options.max_workers.max(1);
        Self {
            size: options.pool_size.min(max_processes),
            parallel_starts: options.parallel_starts.max(1),
            max_processes,
            longest_pause: Duration::from_millis(options.start_backoff_max_ms.into()),
            ready: Parked::new(),
            line: Turns::new(),
            starting: 0,
            processes: 0,
            leaving: 0,
            has_started: false,
            failed_starts: 0,
            not_before: None,
            rests_until: None,
            last_failure: None,
            is_closed: false,
        }
    }

    /// A READY worker, or a place in the line for the next.
    pub(crate) fn take(
        &mut self,
        owner: UserId,
    ) -> Result<Box<Worker>, oneshot::Receiver<Provided>> {
        // The one that has waited longest: it has had the time to get ready for more.
        if !self.ready.is_empty() {
            return Ok(self.ready.remove(0));
        }
        let (place, turn) = oneshot::channel();
        match &self.last_failure {
            Some(reason) if self.failed_starts >= HOPELESS_STARTS => {
                // Cannot fail: the receiver is in our hands.
                let _ = place.send(Err(reason.clone()));
            }
            _ if self.is_closed => {}
            _ => self.line.push(owner, place),
        }
        Err(turn)
    }

    /// A process has become READY.
    pub(crate) fn started(&mut self, worker: Box<Worker>) {
        self.starting -= 1;
        self.has_started = true;
        self.failed_starts = 0;
        self.not_before = None;
        self.last_failure = None;
        self.put(worker);
    }

    /// Takes in a READY worker.
    pub(crate) fn put(&mut self, mut worker: Box<Worker>) {
        if self.is_closed {
            worker.end(DeathCause::Drained);
            return;
        }
        while let Some(place) = self.line.pop() {
            match place.send(Ok(worker)) {
                Err(Ok(back)) => worker = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if attend(&mut worker).is_alive() {
            self.ready.push(worker);
        }
    }

    /// A process did not become READY. Returns the pause before the next attempt.
    pub(crate) fn start_failed(&mut self, reason: &Arc<str>) -> Duration {
        self.starting -= 1;
        let doublings = self.failed_starts.min(16);
        self.failed_starts = self.failed_starts.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(self.longest_pause);
        self.not_before = Some(Instant::now() + pause);
        self.last_failure = Some(reason.clone());
        if self.failed_starts >= HOPELESS_STARTS {
            while let Some(place) = self.line.pop() {
                // A boot that has gone needs no reason.
                let _ = place.send(Err(reason.clone()));
            }
        }
        pause
    }

    /// A process is gone, or has never come to be.
    pub(crate) fn forget_process(&mut self) {
        self.processes -= 1;
        self.leaving = self.leaving.saturating_sub(1);
    }

    /// Starts no process for so long, if others can do without: making one takes a core, and memory that
    /// is to be copied, from whoever has just got a worker. Whether that is so.
    pub(crate) fn rest(&mut self, time: Duration) -> bool {
        let may_rest = self.may_rest();
        self.rests_until = may_rest.then(|| Instant::now() + time);
        may_rest
    }

    fn may_rest(&self) -> bool {
        !self.ready.is_empty() && self.line.len() == 0
    }

    /// Which processes are wanted now.
    pub(crate) fn order(&mut self) -> Order {
        let mut starts = 0;
        if self.is_closed || self.not_before.is_some_and(|at| Instant::now() < at) {
            return Order::Start(0);
        }
        if let Some(until) = self.rests_until {
            if self.may_rest() && Instant::now() < until {
                return Order::Start(0);
            }
            self.rests_until = None;
        }
        let at_once = if self.failed_starts > 0 { 1 } else { self.parallel_starts };
        while self.starting + self.leaving < at_once
            && self.starting + self.leaving + self.ready.len() < self.size + self.line.len()
        {
            if self.processes >= self.max_processes {
                let somebody_waits = self.line.len() > self.starting + self.leaving;
                return if starts == 0 {
                    Order::MakeRoom { somebody_waits }
                } else {
                    Order::Start(starts)
                };
            }
            self.starting += 1;
            self.processes += 1;
            starts += 1;
        }
        Order::Start(starts)
    }

    /// A worker was ended because of [`Order::MakeRoom`].
    pub(crate) fn room_comes(&mut self) {
        self.leaving += 1;
    }

    /// Whether one more boot gets a worker without another one being ended for it.
    pub(crate) fn has_room(&self) -> bool {
        let new = self.max_processes.saturating_sub(self.processes);
        self.line.len() < self.ready.len() + self.starting + new
    }

    /// The workers that wait in the pool.
    pub(crate) fn ready_mut(&mut self) -> &mut Parked {
        &mut self.ready
    }

    /// Ends everything and takes nothing in any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.line = Turns::new();
        self.ready.drain(..).for_each(|worker| worker.end(DeathCause::Drained));
    }

    /// `[starting, ready, processes]`
    pub(crate) fn census(&self) -> [usize; 3] {
        [self.starting, self.ready.len(), self.processes]
    }

    /// Whether a worker is READY, or the last one that was started became so.
    pub(crate) fn can_start(&self) -> bool {
        !self.ready.is_empty() || (self.has_started && self.failed_starts == 0)
    }

    /// What went wrong when the last process was started, if it did.
    pub(crate) fn last_failure(&self) -> Option<Arc<str>> {
        self.last_failure.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::worker;

    fn pool(size: usize, max_workers: usize) -> Pool {
        Pool::new(&SandboxOptions {
            pool_size: size,
            parallel_starts: 2,
            max_workers,
            ..SandboxOptions::default()
        })
    }

    #[test]
    fn starts_are_few_at_a_time() {
        let mut pool = pool(4, 100);
        assert_eq!(pool.order(), Order::Start(2));
        assert_eq!(pool.order(), Order::Start(0));
        let _turns: Vec<_> = (0..10).map(|_| pool.take(UserId::new()).unwrap_err()).collect();
        assert_eq!(pool.order(), Order::Start(0));
        assert_eq!(pool.census(), [2, 0, 2]);
    }

    #[test]
    fn a_full_house_asks_for_room_once_per_process() {
        let mut pool = pool(1, 2);
        assert_eq!(pool.order(), Order::Start(1));
        let _turns: Vec<_> = (0..5).map(|_| pool.take(UserId::new()).unwrap_err()).collect();
        assert_eq!(pool.order(), Order::Start(1));
        assert_eq!(pool.order(), Order::Start(0));
        pool.starting = 0;
        assert_eq!(pool.order(), Order::MakeRoom { somebody_waits: true });
        pool.room_comes();
        pool.room_comes();
        assert_eq!(pool.order(), Order::Start(0));
        pool.forget_process();
        assert_eq!(pool.order(), Order::Start(1));
    }

    #[tokio::test]
    async fn whoever_took_a_worker_has_the_cores_while_there_are_others() {
        const LONG: Duration = Duration::from_secs(60);
        let mut pool = pool(2, 100);
        pool.ready = (0..2).map(|_| worker()).collect();
        assert_eq!(pool.order(), Order::Start(0), "it is full");
        assert!(pool.take(UserId::new()).is_ok() && pool.rest(LONG));
        assert_eq!(pool.order(), Order::Start(0));
        pool.rests_until = Some(Instant::now());
        assert_eq!(pool.order(), Order::Start(1), "it has rested");
        assert!(pool.rest(LONG) && pool.take(UserId::new()).is_ok());
        assert_eq!(pool.order(), Order::Start(1), "that was the last one");
        assert!(!pool.rest(LONG), "nobody is READY");
        pool.ready.push(worker());
        assert!(pool.rest(LONG));
        let (place, _turn) = oneshot::channel();
        pool.line.push(UserId::new(), place);
        pool.starting = 0;
        assert_eq!(pool.order(), Order::Start(2), "somebody waits");
    }

    #[test]
    fn failures_pause_orders_and_end_the_wait() {
        let mut pool = pool(1, 10);
        let reason: Arc<str> = "no such program".into();
        let mut turn = pool.take(UserId::new()).unwrap_err();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            assert!(turn.try_recv().is_err());
            assert_eq!(pool.order(), Order::Start(if pauses.is_empty() { 2 } else { 1 }));
            pool.starting = 1;
            pauses.push(pool.start_failed(&reason));
            assert_eq!(pool.order(), Order::Start(0), "it pauses");
            pool.not_before = None;
        }
        assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2]);
        assert_eq!(turn.try_recv().unwrap().unwrap_err(), reason);
        assert!(pool.take(UserId::new()).unwrap_err().try_recv().unwrap().is_err());
    }
}
