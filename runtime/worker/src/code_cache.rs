//! V8's code cache of the bundle.
//!
//! The cache that falls out of loading holds next to nothing, since functions are compiled when
//! they are called first. One that is taken later holds what has been compiled by then, and halves
//! the load of a large bundle. So a worker that was given none makes one when it is idle after
//! loading, and a better one when it is idle after a call.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deno_core::{JsRuntime, ModuleSpecifier, scope, v8};
use tokio::time::{Sleep, sleep};

/// How long a worker must have been idle: a call that follows at once does not wait for this.
const DELAY: Duration = Duration::from_millis(50);

/// The supervisor takes no more of one worker.
const MAX_CACHES: u8 = 2;

/// Says when to make a cache.
pub(crate) struct Schedule {
    left: u8,
    has_news: bool,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Schedule {
    pub(crate) fn never() -> Self {
        Self { left: 0, has_news: false, delay: None }
    }

    /// After a load without a cache.
    pub(crate) fn loaded() -> Self {
        Self { left: MAX_CACHES, has_news: true, delay: None }
    }

    /// A call is in the worker.
    pub(crate) fn busy(&mut self) {
        self.has_news = true;
        self.delay = None;
    }

    /// Ready when the worker, which is idle now, has been so long enough and has something new.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left == 0 || !self.has_news {
            return Poll::Pending;
        }
        let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(DELAY)));
        if delay.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.delay = None;
        self.has_news = false;
        self.left -= 1;
        Poll::Ready(())
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
