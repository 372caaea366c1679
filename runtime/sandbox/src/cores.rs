//! How many workers are worth being awake at the same time.
//!
//! The server's own threads take half of the cores. Where there are no others, workers that are awake
//! take the cores from the server and from each other, and each change of hands costs what a short
//! call does: such calls are through one worker sooner than through many.

use std::time::Duration;

use crate::lanes::Lanes;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    all: usize,
    /// Those that no thread of the server needs.
    own: usize,
    /// What it takes to wake a worker.
    wake: Duration,
}

impl Cores {
    /// Of this machine.
    pub(crate) fn new(wake: Duration) -> Self {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(all, wake)
    }

    fn of(all: usize, wake: Duration) -> Self {
        Self { all, own: all - all / 2, wake }
    }

    /// Whether there is a core for another worker beside so many that are in a call, for calls as those
    /// of these lanes.
    pub(crate) fn are_left(self, busy: usize, lanes: &Lanes) -> bool {
        busy < self.own || (busy < self.all && !self.are_short(lanes))
    }

    /// Whether calls as those of these lanes should rather wait for a worker that is awake than wake
    /// or load another one, however many wait. Not for one whose call lasts.
    pub(crate) fn are_taken(self, busy: usize, lanes: &Lanes) -> bool {
        busy >= self.own && lanes.are_moving() && self.are_short(lanes)
    }

    fn are_short(self, lanes: &Lanes) -> bool {
        lanes.time_of(1).is_some_and(|time| time < self.wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_calls_leave_the_server_its_cores_and_others_take_all() {
        let wake = Duration::from_micros(60);
        let lanes = |call_us| {
            let mut lanes = Lanes::default();
            (0..100).for_each(|_| lanes.note(call_us));
            lanes
        };
        for (all, of_short) in [(1, 1), (2, 1), (3, 2), (4, 2), (8, 4)] {
            let cores = Cores::of(all, wake);
            for busy in 0..10 {
                assert_eq!(cores.are_left(busy, &lanes(10)), busy < of_short, "{busy} of {all}");
                assert_eq!(cores.are_left(busy, &lanes(500)), busy < all, "{busy} of {all}");
                assert_eq!(cores.are_left(busy, &Lanes::default()), busy < all, "unknown");
                // Nobody is awake whom they could wait for.
                assert!(!cores.are_taken(busy, &lanes(10)));
            }
        }
    }
}
