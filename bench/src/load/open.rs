//! Open loop: calls are due at instants fixed beforehand, whatever the server does. Latency counts
//! from the instant a call was due; counted from the instant it was sent, a stall would hide all
//! calls that had to wait for it but one per connection (coordinated omission).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::record::{Expected, Record, Recorder, When};
use super::schedule::Arrival;
use crate::client::{Clock, Lane, Request, Sleeper};

/// Counted for a call that was due when there were too many already.
const CAPPED: &str = "client_cap";
/// Counted for a call that had no answer when patience ended.
const UNANSWERED: &str = "client_timeout";

/// How an open loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenPlan {
    /// What is due before this is called and forgotten.
    pub(crate) warm_up_ns: u64,
    /// The length of the schedule, warm-up included.
    pub(crate) lasting_ns: u64,
    /// Calls that are due and not answered, those waiting for a connection included. One more is
    /// an error, not a sample that is left out.
    pub(crate) max_in_flight: usize,
    /// Patience after the end of the schedule.
    pub(crate) drain_ns: u64,
    pub(crate) expected: Expected,
}

struct Shared {
    waiting: RefCell<VecDeque<Arrival>>,
    in_flight: Cell<usize>,
    is_over: Cell<bool>,
    due: Notify,
    recorder: RefCell<Recorder>,
}

/// Runs a schedule over these lanes. A call that is due while every lane is taken waits, and its
/// wait counts.
pub(crate) async fn open<L: Lane>(
    clock: &impl Clock,
    lanes: &mut [L],
    requests: &[Request],
    schedule: &[Arrival],
    plan: &OpenPlan,
) -> io::Result<Record> {
    let mut alarm = clock.sleeper()?;
    let mut last_call = clock.sleeper()?;
    let begin = clock.now();
    let end = begin + plan.lasting_ns;
    let shared = Shared {
        waiting: RefCell::default(),
        in_flight: Cell::new(0),
        is_over: Cell::new(false),
        due: Notify::new(),
        recorder: RefCell::new(Recorder::new(plan.expected, end)),
    };
    let is_sample = |arrival: Arrival| arrival.at >= plan.warm_up_ns;
    let dispatch = async {
        for arrival in schedule {
            let at = begin + arrival.at;
            if clock.now() < at {
                alarm.until(at).await;
            }
            if is_sample(*arrival) {
                shared.recorder.borrow_mut().offered();
            }
            if shared.in_flight.get() >= plan.max_in_flight {
                if is_sample(*arrival) {
                    shared.recorder.borrow_mut().error(CAPPED);
                }
                continue;
            }
            shared.in_flight.set(shared.in_flight.get() + 1);
            shared.waiting.borrow_mut().push_back(*arrival);
            shared.due.notify_one();
        }
        shared.is_over.set(true);
        shared.due.notify_waiters();
    };
    let mut running: FuturesUnordered<_> = lanes
        .iter_mut()
        .map(|lane| {
            let shared = &shared;
            async move {
                loop {
                    let next = shared.waiting.borrow_mut().pop_front();
                    let Some(arrival) = next else {
                        if shared.is_over.get() {
                            return;
                        }
                        shared.due.notified().await;
                        continue;
                    };
                    let with_timings =
                        is_sample(arrival) && shared.recorder.borrow_mut().wants_timings();
                    let sent = clock.now();
                    let result = lane.call(&requests[arrival.request], with_timings).await;
                    shared.in_flight.set(shared.in_flight.get() - 1);
                    if is_sample(arrival) {
                        // A call that was told to take its time is due that much later.
                        let lasts = requests[arrival.request].lasts_ns();
                        let when = When {
                            scheduled: begin + arrival.at + lasts,
                            sent: sent + lasts,
                            done: clock.now(),
                        };
                        let result = result.as_ref().map_err(|error| *error);
                        shared.recorder.borrow_mut().call(when, result);
                    }
                }
            }
        })
        .collect();
    {
        let all = pin!(async {
            let lanes = async { while running.next().await.is_some() {} };
            futures::future::join(dispatch, lanes).await
        });
        let patience = pin!(last_call.until(end + plan.drain_ns));
        if let Either::Right(_) = select(all, patience).await {
            let mut recorder = shared.recorder.borrow_mut();
            for _ in 0..shared.in_flight.get() {
                recorder.error(UNANSWERED);
            }
        }
    }
    drop(running);
    Ok(shared.recorder.into_inner().finish(begin + plan.warm_up_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::fixed;
    use crate::load::virtual_time::{KnownDelays, Stalling, World};
    use crate::load::{MS, SECOND, poisson};

    fn plan(seconds: u64) -> OpenPlan {
        OpenPlan {
            warm_up_ns: 0,
            lasting_ns: seconds * SECOND,
            max_in_flight: 10_000,
            drain_ns: 10 * SECOND,
            expected: Expected::warm(0),
        }
    }

    fn request() -> [Request; 1] {
        [Request::new("GET", "h", "/", &[], b"")]
    }

    #[test]
    fn a_stall_of_a_second_shows_in_the_corrected_p99_and_not_in_the_uncorrected_one() {
        let world = World::new();
        // A call takes 1 ms, but nothing is answered between 10 s and 11 s.
        let mut lanes = [Stalling::new(&world, MS, 10 * SECOND..11 * SECOND)];
        let schedule = fixed(100.0, 30 * SECOND, 1);
        let record =
            world.run(open(&world.clock(), &mut lanes, &request(), &schedule, &plan(30))).unwrap();
        assert_eq!((record.offered, record.completed, record.errors.len()), (3_000, 3_000, 0));
        let corrected = record.corrected.value_at_quantile(0.99);
        let uncorrected = record.uncorrected.value_at_quantile(0.99);
        // 100 of 3 000 calls were due in the stall; one in three of those waited 670 ms or more.
        assert!((600 * MS..800 * MS).contains(&corrected), "{corrected}");
        assert!(uncorrected <= MS + MS / 500, "{uncorrected}");
        assert!(record.uncorrected.max() >= 990 * MS, "one call was in it");
    }

    #[test]
    fn a_known_distribution_gives_its_percentiles_back() {
        let world = World::new();
        // More lanes than ever needed: nobody waits, so latency is the server's delay.
        let mut lanes: Vec<_> = (0..100)
            .map(|n| {
                // Each begins elsewhere in the row, so that all delays are equally frequent.
                let delays = (0..100).map(|i| (1 + (i + n) % 100) * MS).collect();
                KnownDelays::new(&world, delays)
            })
            .collect();
        let schedule = poisson(500.0, 60 * SECOND, 1, 3);
        let record =
            world.run(open(&world.clock(), &mut lanes, &request(), &schedule, &plan(60))).unwrap();
        assert_eq!(record.offered, schedule.len() as u64);
        for (quantile, ms) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0)] {
            let found = record.corrected.value_at_quantile(quantile) as f64 / MS as f64;
            assert!((found - ms).abs() < 2.0, "{quantile}: {found} ms");
        }
        let off: u64 = record.uncorrected.max().abs_diff(record.corrected.max());
        assert!(off <= MS, "nobody waited for a lane: {off}");
    }

    #[test]
    fn what_a_function_was_told_to_take_is_no_latency() {
        let world = World::new();
        let mut lanes = [KnownDelays::new(&world, vec![30 * MS])];
        let schedule = fixed(10.0, SECOND, 1);
        let request = request().map(|request| request.lasting(25 * MS));
        let record =
            world.run(open(&world.clock(), &mut lanes, &request, &schedule, &plan(1))).unwrap();
        assert_eq!(record.corrected.len(), 10);
        assert!(record.corrected.max().abs_diff(5 * MS) <= MS / 100);
    }

    #[test]
    fn a_cap_on_calls_in_flight_is_an_error_and_not_a_gap() {
        let world = World::new();
        let mut lanes = [KnownDelays::new(&world, vec![SECOND])];
        let schedule = fixed(10.0, SECOND, 1);
        let plan = OpenPlan { max_in_flight: 2, ..plan(1) };
        let record =
            world.run(open(&world.clock(), &mut lanes, &request(), &schedule, &plan)).unwrap();
        assert_eq!(record.offered, 10);
        assert_eq!(record.errors.get(CAPPED), Some(&8));
        assert_eq!(record.corrected.len(), 2);
    }

    #[test]
    fn what_is_never_answered_is_an_error() {
        let world = World::new();
        let mut lanes = [KnownDelays::new(&world, vec![1_000 * SECOND])];
        let schedule = fixed(10.0, SECOND, 1);
        let record =
            world.run(open(&world.clock(), &mut lanes, &request(), &schedule, &plan(1))).unwrap();
        assert_eq!(record.errors.get(UNANSWERED), Some(&10));
        assert_eq!(record.completed, 0);
    }
}
