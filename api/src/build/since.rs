//! How long ago something was, for whoever has until then and no longer, since others go by clocks of
//! their own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

/// A moment. [`Instant`] may stand still while this machine sleeps, and the time of day may be set back: what
/// has gone on further counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    at: Instant,
    by_clock: SystemTime,
}

impl Since {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), by_clock: SystemTime::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let by_clock = self.by_clock.elapsed().unwrap_or_default();
        self.at.elapsed().max(by_clock)
    }

    /// Works until so long after this moment; `None`: that was not enough. Of work that is not done then no
    /// further step is begun, also not by a machine that has slept, or a process that was stopped.
    pub(super) async fn within<T>(
        self,
        most: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let in_time = poll_fn(|cx| {
            if self.elapsed() >= most {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        });
        tokio::time::timeout_at((self.at + most).into(), in_time).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_moment_is_long_ago_by_either_clock() {
        let now = Since::now();
        assert!(now.elapsed() < HOUR);
        assert!(Since { by_clock: now.by_clock - HOUR, ..now }.elapsed() >= HOUR);
        assert!(Since { by_clock: now.by_clock + HOUR, ..now }.elapsed() < HOUR);
        // A machine that was started just now has no such moment.
        if let Some(at) = now.at.checked_sub(HOUR) {
            assert!(Since { at, by_clock: now.by_clock + HOUR }.elapsed() >= HOUR);
        }
    }

    #[tokio::test]
    async fn nothing_is_begun_after_a_machine_has_slept() {
        let now = Since::now();
        assert_eq!(now.within(HOUR, async { 1 }).await, Some(1));
        let slept = Since { by_clock: now.by_clock - HOUR, ..now };
        let mut has_begun = false;
        assert_eq!(slept.within(HOUR, async { has_begun = true }).await, None);
        assert!(!has_begun);
    }

    #[tokio::test]
    async fn nothing_goes_on_after_a_process_was_stopped() {
        let brief = Duration::from_millis(50);
        let mut goes_on = false;
        let work = async {
            std::thread::sleep(2 * brief);
            tokio::task::yield_now().await;
            goes_on = true;
        };
        assert_eq!(Since::now().within(brief, work).await, None);
        assert!(!goes_on);
    }
}
