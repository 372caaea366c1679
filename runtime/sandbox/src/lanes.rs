//! The workers of one version that are in a call, and the calls that wait in them.
//!
//! To wake a worker costs more than many handlers do. So a call of a function whose calls are
//! short goes into the socket of a worker that is busy: when the call before it is over, the
//! worker has the next one at hand and goes on, and the owner of that call gets the worker. Until
//! the worker has claimed it, a call that waits can be taken back and run elsewhere. None waits in a
//! worker whose output could not be told apart by call ([`crate::pipes`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cloudserve_protocol::claims::MAX_WAITING_CALLS;
use tokio::sync::oneshot;

use crate::asked::Asked;
use crate::line::Line;
use crate::state::Grant;
use crate::worker::{Process, Worker};

/// Calls after which the time they take is known well enough.
const MIN_SAMPLES: u32 = 8;

/// So many of the last [`MIN_SAMPLES`] are often.
const OFTEN: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    open: Vec<Lane>,
    service: ServiceTime,
    /// Calls that have come to their end.
    ended: u64,
}

#[derive(Debug)]
struct Lane {
    process: Arc<Process>,
    line: Arc<Line>,
    waiting: VecDeque<Waiting>,
    /// The worker is to end: no call is to wait in it any more.
    is_closing: bool,
    /// A call was taken back from it: the one before takes longer than was expected.
    is_stuck: bool,
}

#[derive(Debug)]
struct Waiting {
    call: u32,
    /// See [`Lanes::take_back`].
    since: u64,
    grant: oneshot::Sender<Grant>,
}

/// A call that waits in a worker.
#[derive(Debug)]
pub(crate) struct InLane {
    pub(crate) worker: u64,
    pub(crate) line: Arc<Line>,
    pub(crate) call: u32,
    /// See [`Line::join`].
    pub(crate) has_to_flush: bool,
    pub(crate) granted: oneshot::Receiver<Grant>,
}

/// How long calls occupy a worker, as of late: soon up, slowly down.
#[derive(Debug, Default)]
struct ServiceTime {
    mean_us: u64,
    samples: u32,
    /// The last ones.
    recent_us: [u64; MIN_SAMPLES as usize],
}

impl ServiceTime {
    fn note(&mut self, us: u64) {
        self.recent_us[(self.samples % MIN_SAMPLES) as usize] = us;
        // In 16ths, so that a few microseconds do not round to none.
        let us = us << 4;
        let weight = if us > self.mean_us { 2 } else { 8 };
        let mean_us = if self.samples == 0 { us } else { self.mean_us };
        self.mean_us = (mean_us * (weight - 1) + us) / weight;
        self.samples = self.samples.saturating_add(1);
    }

    /// What `calls` of them are expected to take.
    fn of(&self, calls: usize) -> Option<u64> {
        (self.samples >= MIN_SAMPLES).then_some((self.mean_us * calls as u64) >> 4)
    }

    /// Whether several of the last ones took so long: a worker that is busy is then most likely in one of
    /// those. One among short ones says nothing, and makes the mean as long for a while.
    fn often_last(&self, us: u64) -> bool {
        let lasting = self.recent_us.iter().filter(|recent_us| **recent_us >= us).count();
        self.samples >= MIN_SAMPLES && lasting >= OFTEN
    }
}

impl Lanes {
    /// Workers that are in a call.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether one of them comes to the end of its call as soon as others did, as far as is known.
    pub(crate) fn are_moving(&self) -> bool {
        self.open
            .iter()
            .any(|lane| !(lane.is_closing || lane.is_stuck || lane.process.pipes.are_in_use()))
    }

    /// Calls that wait in them.
    pub(crate) fn waiting(&self) -> usize {
        self.open.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// A worker is about to be in a call.
    pub(crate) fn open(&mut self, worker: &Worker) {
        worker.line.begin();
        self.open.push(Lane {
            process: worker.process.clone(),
            line: worker.line.clone(),
            waiting: VecDeque::new(),
            is_closing: false,
            is_stuck: false,
        });
    }

    /// The worker in which a call is expected to wait for at most this long.
    pub(crate) fn room(&self, longest_us: u64) -> Option<usize> {
        let takes_calls = |lane: &Lane| {
            let is_shut = lane.is_closing || lane.is_stuck;
            let is_alone = lane.process.is_worn() || lane.process.pipes.are_in_use();
            !is_shut && !is_alone && lane.line.takes_more()
        };
        let lanes = self.open.iter().enumerate().filter(|(_, lane)| takes_calls(lane));
        let (at, lane) = lanes.min_by_key(|(_, lane)| lane.waiting.len())?;
        let depth = lane.waiting.len();
        let wait_us = self.service.of(depth + 1)?;
        (depth < MAX_WAITING_CALLS && wait_us <= longest_us).then_some(at)
    }

    /// What so many calls are expected to take, if that is known.
    pub(crate) fn time_of(&self, calls: usize) -> Option<Duration> {
        self.service.of(calls).map(Duration::from_micros)
    }

    /// Whether calls often last twice as long: one that is in a worker is not expected to end within this
    /// time.
    pub(crate) fn outlast(&self, time: Duration) -> bool {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.service.often_last(time_us.saturating_mul(2))
    }

    /// A call waits, from this tick on, in the worker that [`Lanes::room`] has named.
    pub(crate) fn join(&mut self, at: usize, asked: &mut Asked, since: u64) -> InLane {
        let lane = &mut self.open[at];
        let (grant, granted) = oneshot::channel();
        let (call, has_to_flush) = lane.line.join(asked);
        lane.waiting.push_back(Waiting { call, since, grant });
        InLane { worker: lane.process.id, line: lane.line.clone(), call, has_to_flush, granted }
    }

    /// Takes a call back, unless it has begun or has the worker already.
    pub(crate) fn revoke(&mut self, worker: u64, call: u32) -> bool {
        let Some(lane) = self.open.iter_mut().find(|lane| lane.process.id == worker) else {
            return false;
        };
        let Some(at) = lane.waiting.iter().position(|waiting| waiting.call == call) else {
            return false;
        };
        let is_revoked = lane.line.take_back(call);
        if is_revoked {
            lane.waiting.remove(at);
            lane.is_stuck = true;
        }
        is_revoked
    }

    /// Takes back the calls that have waited since this tick or longer, unless they have begun.
    /// Says how many there were.
    pub(crate) fn take_back(&mut self, since: u64) -> usize {
        let mut count = 0;
        for lane in &mut self.open {
            let line = lane.line.clone();
            let is_taken =
                |waiting: &Waiting| waiting.since <= since && line.take_back(waiting.call);
            while let Some(at) = lane.waiting.iter().position(is_taken) {
                lane.is_stuck = true;
                count += 1;
                if let Some(waiting) = lane.waiting.remove(at) {
                    // Whoever does not listen any more has gone.
                    let _ = waiting.grant.send(Grant::TooLong);
                }
            }
        }
        count
    }

    /// A call in this worker is over and took so long.
    pub(crate) fn note(&mut self, busy_us: u32) {
        self.service.note(busy_us.into());
        self.ended += 1;
    }

    /// Calls that have come to their end until now.
    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    /// No call is to wait in this worker any more, or in any.
    pub(crate) fn close(&mut self, worker: Option<u64>) {
        let lanes = self.open.iter_mut();
        lanes
            .filter(|lane| worker.is_none_or(|id| id == lane.process.id))
            .for_each(|lane| lane.is_closing = true);
    }

    /// Gives the worker to the call that waits in it next. Comes back when there is none: the
    /// worker is in a call no longer.
    pub(crate) fn hand_over(&mut self, worker: Box<Worker>) -> Option<Box<Worker>> {
        let Some(at) = self.position(worker.process.id) else { return Some(worker) };
        self.open[at].is_stuck = false;
        let mut worker = worker;
        while let Some(next) = self.open[at].waiting.pop_front() {
            self.open[at].line.hand_over(next.call);
            // Only a runtime that is going down drops the other end: see `behind`.
            let Err(Grant::Worker(back)) = next.grant.send(Grant::Worker(worker)) else {
                return None;
            };
            worker = back;
        }
        self.open.swap_remove(at);
        Some(worker)
    }

    /// The worker is lost. Calls that waited in it run elsewhere. Says how many there were.
    pub(crate) fn dissolve(&mut self, worker: u64) -> Option<usize> {
        let at = self.position(worker)?;
        let lane = self.open.swap_remove(at);
        let count = lane.waiting.len();
        for Waiting { call, grant, .. } in lane.waiting {
            let is_revoked = lane.line.take_back(call);
            // Whoever does not listen any more has gone.
            let _ = grant.send(if is_revoked { Grant::Again } else { Grant::Lost });
        }
        Some(count)
    }

    fn position(&self, worker: u64) -> Option<usize> {
        self.open.iter().position(|lane| lane.process.id == worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_is_believed_late_and_its_growth_soon() {
        let mut service = ServiceTime::default();
        (0..MIN_SAMPLES).for_each(|_| {
            assert_eq!(service.of(1), None);
            service.note(10);
        });
        assert_eq!((service.of(1), service.of(7)), (Some(10), Some(70)));
        service.note(5_000);
        assert!(service.of(1).is_some_and(|us| us > 2_000));
        (0..100).for_each(|_| service.note(1));
        assert_eq!(service.of(10), Some(10));
    }

    #[test]
    fn calls_last_when_several_of_them_do() {
        let lasts = |lanes: &Lanes| lanes.outlast(Duration::from_micros(10));
        let mut lanes = Lanes::default();
        for n in 1..=MIN_SAMPLES {
            lanes.note(20);
            assert_eq!(lasts(&lanes), n == MIN_SAMPLES, "{n}");
        }
        for n in 1..=MIN_SAMPLES {
            lanes.note(19);
            assert_eq!(lasts(&lanes), n <= 5, "{n} do not");
        }
        for n in 1..=MIN_SAMPLES {
            lanes.note(5_000);
            assert_eq!(lasts(&lanes), n >= 3, "{n} do");
        }
    }
}
