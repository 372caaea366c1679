//! Closed loop: each connection makes its next call when the last one is answered. What it can
//! show is throughput and latency at a given number of callers; a stall of the server also stalls
//! the callers, so it says little about what happens to those who come on their own.

use std::cell::RefCell;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::record::{Expected, Record, Recorder, When};
use crate::client::{Clock, Lane, Request};

/// How a closed loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClosedPlan {
    /// Calls before this are made and forgotten.
    pub(crate) warm_up_ns: u64,
    /// Calls begun in this are measured.
    pub(crate) window_ns: u64,
    pub(crate) expected: Expected,
}

/// Runs the loop on all lanes. Calls that have begun when the window ends are finished, so that
/// nothing of this load is left for whoever is measured next.
pub(crate) async fn closed<L: Lane>(
    clock: &impl Clock,
    lanes: &mut [L],
    requests: &[Request],
    plan: &ClosedPlan,
    mut on_measuring: impl FnMut(),
) -> Record {
    let begin = clock.now() + plan.warm_up_ns;
    let end = begin + plan.window_ns;
    let recorder = RefCell::new(Recorder::new(plan.expected, end));
    let is_measuring = std::cell::Cell::new(false);
    let n_lanes = lanes.len();
    let on_measuring = RefCell::new(&mut on_measuring);
    let mut running: FuturesUnordered<_> = lanes
        .iter_mut()
        .enumerate()
        .map(|(place, lane)| {
            let (recorder, is_measuring, on_measuring) = (&recorder, &is_measuring, &on_measuring);
            async move {
                let mut next = place;
                loop {
                    let sent = clock.now();
                    if sent >= end {
                        break;
                    }
                    let is_sample = sent >= begin;
                    if is_sample && !is_measuring.replace(true) {
                        (on_measuring.borrow_mut())();
                    }
                    let with_timings = is_sample && recorder.borrow_mut().wants_timings();
                    let result = lane.call(&requests[next % requests.len()], with_timings).await;
                    next += n_lanes;
                    if is_sample {
                        let when = When { scheduled: sent, sent, done: clock.now() };
                        let mut recorder = recorder.borrow_mut();
                        recorder.offered();
                        recorder.call(when, result.as_ref().map_err(|error| *error));
                    }
                }
            }
        })
        .collect();
    while running.next().await.is_some() {}
    drop(running);
    recorder.into_inner().finish(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::virtual_time::{KnownDelays, World};
    use crate::load::{MS, SECOND};

    #[test]
    fn throughput_and_percentiles_are_those_of_the_server() {
        // 1 to 100 ms in turn: the percentiles are known.
        let world = World::new();
        let delays = (1..=100).map(|ms| ms * MS).collect();
        let mut lanes = [KnownDelays::new(&world, delays)];
        let plan =
            ClosedPlan { warm_up_ns: 0, window_ns: 101 * SECOND, expected: Expected::warm(0) };
        let request = [Request::new("GET", "h", "/", &[], b"")];
        let record = world.run(closed(&world.clock(), &mut lanes, &request, &plan, || {}));
        // 100 calls take 5 050 ms.
        assert_eq!(record.completed, 2_000);
        assert!((record.rate() - 2_000.0 / 101.0).abs() < 0.01);
        for (quantile, ms) in [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)] {
            let found = record.uncorrected.value_at_quantile(quantile);
            assert!(found.abs_diff(ms * MS) <= ms * MS / 500, "{quantile}: {found}");
        }
    }

    #[test]
    fn calls_of_the_warm_up_are_made_and_not_recorded() {
        let world = World::new();
        let mut lanes = [KnownDelays::new(&world, vec![MS]), KnownDelays::new(&world, vec![MS])];
        let plan =
            ClosedPlan { warm_up_ns: 10 * MS, window_ns: 10 * MS, expected: Expected::warm(0) };
        let request = [Request::new("GET", "h", "/", &[], b"")];
        let mut begun = 0;
        let record = world.run(closed(&world.clock(), &mut lanes, &request, &plan, || begun += 1));
        assert_eq!((record.completed, record.offered, begun), (20, 20, 1));
        assert_eq!(lanes[0].calls(), 20);
    }
}
