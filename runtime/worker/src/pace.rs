//! Whether the next call is worth looking for.
//!
//! A caller that calls again as soon as it has its answer finds a worker that has just gone to
//! sleep, and waking it takes longer than many handlers do. Such calls come one at a time and soon
//! after each other; a worker that has seen a few of them looks for the next one before it sleeps. So
//! does one that was just loaded: most often a call waits for it.

use std::time::{Duration, Instant};

/// Calls in a row that have come alone, and soon.
const ENOUGH: u32 = 16;

/// What is soon while everybody sleeps in between, as a multiple of what a look takes: being woken,
/// three times for each call, is most of it.
const SOON: u32 = 4;

/// See the module.
pub(crate) struct Pace {
    look: Duration,
    resting_since: Option<Instant>,
    in_a_row: u32,
    is_new: bool,
}

impl Pace {
    /// `look`: how long the next call may be looked for.
    pub(crate) fn new(look: Duration) -> Self {
        Self { look, resting_since: None, in_a_row: 0, is_new: true }
    }

    /// A call has come; `is_alone` when there is no other, here or in another worker.
    pub(crate) fn came(&mut self, now: Instant, is_alone: bool) {
        let rested = self.resting_since.take().map(|since| now.saturating_duration_since(since));
        let is_next = is_alone && rested.is_some_and(|rested| rested < self.look * SOON);
        self.in_a_row = if is_next { self.in_a_row.saturating_add(1) } else { 0 };
        self.is_new = false;
    }

    /// There is no call any more. Says how long the next one is worth looking for.
    pub(crate) fn rests(&mut self, now: Instant) -> Option<Duration> {
        let has_just_begun = self.resting_since.is_none();
        self.resting_since.get_or_insert(now);
        let is_likely = self.in_a_row >= ENOUGH || self.is_new;
        (has_just_begun && is_likely).then_some(self.look)
    }

    /// It did not come while it was looked for.
    pub(crate) fn missed(&mut self) {
        self.in_a_row = 0;
        self.is_new = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_micros(100);

    struct Calls {
        pace: Pace,
        now: Instant,
    }

    impl Calls {
        fn new(look: Duration) -> Self {
            Self { pace: Pace::new(look), now: Instant::now() }
        }

        /// A call after a pause. Whether the next one is worth looking for.
        fn call(&mut self, pause_us: u64, is_alone: bool) -> Option<Duration> {
            self.now += Duration::from_micros(pause_us);
            self.pace.came(self.now, is_alone);
            self.pace.rests(self.now)
        }
    }

    #[test]
    fn only_lone_calls_that_follow_each_other_are_looked_for() {
        let mut calls = Calls::new(LOOK);
        for n in 0..=ENOUGH {
            assert_eq!(calls.call(150, true), (n == ENOUGH).then_some(LOOK), "{n}");
        }
        assert_eq!(calls.call(399, true), Some(LOOK));
        for (pause_us, is_alone) in [(50, false), (400, true), (5_000, true)] {
            assert_eq!(calls.call(pause_us, is_alone), None, "{pause_us} {is_alone}");
            (1..ENOUGH).for_each(|_| assert_eq!(calls.call(1, true), None));
            assert_eq!(calls.call(1, true), Some(LOOK));
        }
        calls.pace.missed();
        assert_eq!(calls.call(1, true), None);
    }

    #[test]
    fn a_rest_is_looked_into_once_and_never_when_it_is_not_to_be() {
        let mut calls = Calls::new(LOOK);
        for _ in 0..=ENOUGH {
            calls.call(1, true);
        }
        calls.pace.came(calls.now, true);
        assert_eq!(calls.pace.rests(calls.now), Some(LOOK));
        assert_eq!(calls.pace.rests(calls.now), None, "something else has woken it");
        let mut calls = Calls::new(LOOK);
        assert_eq!(calls.pace.rests(calls.now), Some(LOOK), "it was just loaded");
        assert_eq!(calls.call(1, true), None, "it has had a call since");
        let mut calls = Calls::new(Duration::ZERO);
        (0..99).for_each(|_| assert_eq!(calls.call(0, true), None));
    }
}
