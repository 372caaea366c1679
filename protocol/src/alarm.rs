//! Deadlines that are hardly ever reached.
//!
//! A timer of tokio's goes into a wheel and out of it again, under a lock, for each call that it
//! guards. An [`Alarm`] stays where it is: it goes off no later than the next deadline it was asked
//! for, and is put off when that is too early. So most deadlines cost a comparison.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

/// A timer for one deadline after the other, of one task at a time.
#[derive(Debug, Default)]
pub struct Alarm(Option<Set>);

#[derive(Debug)]
struct Set {
    sleep: Pin<Box<Sleep>>,
    wakes: Waker,
}

impl Set {
    fn at(deadline: tokio::time::Instant, wakes: &Waker) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(deadline)), wakes: wakes.clone() }
    }

    /// Whether it will wake this task, and by then.
    fn will_wake(&self, task: &Waker, deadline: tokio::time::Instant) -> bool {
        self.sleep.deadline() <= deadline && self.wakes.will_wake(task) && !self.sleep.is_elapsed()
    }
}

impl Alarm {
    /// Ready when the deadline has passed; else the task is woken by then, and perhaps before.
    ///
    /// # Panics
    /// Outside of a tokio runtime with timers.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        if self.0.as_ref().is_some_and(|set| set.will_wake(cx.waker(), deadline)) {
            return Poll::Pending;
        }
        let set = self.0.get_or_insert_with(|| Set::at(deadline, cx.waker()));
        set.wakes.clone_from(cx.waker());
        let sleep = &mut set.sleep;
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        // It must know the task, even one that has used up its turn.
        while Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx).is_ready() {
            if tokio::time::Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::task::coop::consume_budget;

    use super::*;

    #[tokio::test]
    async fn deadlines_come_in_any_order() {
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let mut poll_once = |ms| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            alarm.poll(&mut cx, after(ms))
        };
        // Sooner than the one before, and then none of both.
        assert!([60_000, 20, 60_000].map(&mut poll_once).iter().all(Poll::is_pending));
        for ms in [40, 40, 60, 10] {
            poll_fn(|cx| alarm.poll(cx, after(ms))).await;
            assert!(Instant::now() >= after(ms), "{ms}");
        }
    }

    #[tokio::test]
    async fn whoever_has_used_up_its_turn_is_woken_all_the_same() {
        let mut alarm = Alarm::default();
        let deadline = Instant::now() + Duration::from_millis(20);
        let mut is_first = true;
        let woken = poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                while pin!(consume_budget()).poll(cx).is_ready() {}
            }
            alarm.poll(cx, deadline)
        });
        tokio::time::timeout(Duration::from_secs(5), woken).await.unwrap();
    }
}
