//! V8's code cache of the bundle.
//!
//! The cache that falls out of loading holds next to nothing, since functions are compiled when
//! they are called first. One that is taken later holds what has been compiled by then, and halves
//! the load of a large bundle. So a worker that was given none makes one when it is idle after
//! loading, and a better one when it is idle after a call. One that was given a cache of the first kind
//! makes one of the second.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deno_core::{JsRuntime, ModuleSpecifier, scope, v8};
use tokio::time::{Instant, Sleep, sleep};

/// How long a worker must have been idle: a call that follows at once does not wait for this.
const DELAY: Duration = Duration::from_millis(50);

/// The supervisor takes no more of one worker.
const MAX_CACHES: u8 = 2;

/// Says when to make a cache.
pub(crate) struct Schedule {
    left: u8,
    has_news: bool,
    /// A call has come since the delay began. It begins anew when it is over: calls that follow each other
    /// set no timer.
    was_busy: bool,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Schedule {
    pub(crate) fn never() -> Self {
        Self { left: 0, has_news: false, was_busy: false, delay: None }
    }

    /// After a load without a cache.
    pub(crate) fn loaded() -> Self {
        Self { left: MAX_CACHES, has_news: true, ..Self::never() }
    }

    /// After a load with a cache that was made before any call.
    pub(crate) fn loaded_early() -> Self {
        Self { left: 1, ..Self::never() }
    }

    /// A call is in the worker.
    pub(crate) fn busy(&mut self) {
        self.has_news = true;
        self.was_busy = true;
    }

    /// Ready when the worker, which is idle now, has been so long enough and has something new.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left == 0 || !self.has_news {
            return Poll::Pending;
        }
        if self.delay.is_none() {
            self.was_busy = false;
        }
        let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(DELAY)));
        while delay.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.was_busy) {
                self.delay = None;
                self.has_news = false;
                self.left -= 1;
                return Poll::Ready(());
            }
            delay.as_mut().reset(Instant::now() + DELAY);
        }
        Poll::Pending
    }
}

/// The cache of a loaded module; `None` when V8 will not.
///
/// V8 finds the module's compiled code, its functions included, in the isolate's compilation
/// cache under source and origin; were it gone from there, it would compile all of it again.
pub(crate) fn make(
    runtime: &mut JsRuntime,
    url: &ModuleSpecifier,
    source: &str,
) -> Option<Vec<u8>> {
    scope!(scope, runtime);
    v8::tc_scope!(let scope, scope);
    let name = v8::String::new(scope, url.as_str())?;
    let source = v8::String::new(scope, source)?;
    // As deno_core names it.
    let origin =
        v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, 0, None, false, false, true, None);
    let mut source = v8::script_compiler::Source::new(source, Some(&origin));
    let module = v8::script_compiler::compile_module2(
        scope,
        &mut source,
        v8::script_compiler::CompileOptions::EagerCompile,
        v8::script_compiler::NoCacheReason::NoReason,
    )?;
    let cache = module.get_unbound_module_script(scope).create_code_cache()?;
    Some(cache.to_vec())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn is_due(schedule: &mut Schedule) -> bool {
        let due = poll_fn(|cx| schedule.poll_due(cx));
        tokio::time::timeout(4 * DELAY, due).await.is_ok()
    }

    #[tokio::test]
    async fn one_is_made_after_the_load_and_one_after_a_call() {
        let mut schedule = Schedule::loaded();
        assert!(is_due(&mut schedule).await);
        assert!(!is_due(&mut schedule).await, "there is nothing new");
        schedule.busy();
        let nearly = tokio::time::timeout(DELAY / 2, poll_fn(|cx| schedule.poll_due(cx)));
        assert!(nearly.await.is_err(), "the next call may follow at once");
        schedule.busy();
        let since = Instant::now();
        assert!(is_due(&mut schedule).await && since.elapsed() >= DELAY);
        schedule.busy();
        assert!(!is_due(&mut schedule).await, "the supervisor takes no more");
        for (mut schedule, makes_one) in
            [(Schedule::loaded_early(), true), (Schedule::never(), false)]
        {
            assert!(!is_due(&mut schedule).await, "no call has compiled anything");
            schedule.busy();
            assert_eq!(is_due(&mut schedule).await, makes_one);
        }
    }
}
