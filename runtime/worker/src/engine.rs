//! V8 on one thread: no helper threads for compiling or collecting garbage. A process that is
//! forked takes one thread along and no other, and hundreds of workers share a few cores anyway.

use deno_core::{JsRuntime, v8};

/// - The zygote has one thread (see the module).
/// - The young generation would be sized by the boot heap limit, and collections of
///   allocation-heavy code with it; and it would begin at a size that loading a package fills many
///   times over, with what survives (lodash: 15 ms of CPU to load, 9 so).
/// - The platform's compiled code stays, however long it was not called.
/// - A heap may grow threefold before all of it is collected. Left to itself, V8 collects a small
///   heap after a third more, and array buffers count: echoing 1 MB collected every other call.
/// - Source positions that are not there are made when the first error is created, by parsing all
///   of its script again. Libraries create errors to catch them.
/// - V8 150's loop unrolling forgets the interrupt check of a loop around an inlined built-in
///   (`while (true) new Array(1000).fill(0)`), which nothing but SIGKILL stops then.
/// - V8 collects all of a heap again when 30 s have gone by with little to do, at the next turn of the event
///   loop. A fork has the zygote's clock: its first call took 14 ms more, and copied 4 MB of pages.
/// - [`Engine::reseed`] sets a flag after V8 has started.
const V8_FLAGS: &str = "--single-threaded \
     --min-semi-space-size=4 --max-semi-space-size=8 --no-enable-lazy-source-positions \
     --no-flush-bytecode --heap-growing-percent=200 \
     --no-turboshaft-loop-unrolling --no-memory-reducer --no-freeze-flags-after-init";

/// V8's platform, which holds what V8 has put off.
pub(crate) struct Engine(v8::SharedRef<v8::Platform>);

impl Engine {
    /// Starts V8. On the main thread, before any other thread exists.
    pub(crate) fn start() -> Self {
        v8::V8::set_flags_from_string(V8_FLAGS);
        deno_runtime::colors::set_use_color(false);
        let platform = v8::new_single_threaded_default_platform(false).make_shared();
        JsRuntime::init_platform(Some(platform.clone()));
        Self(platform)
    }

    /// Whether functions are compiled when they are called first, which is V8's usual way. Off
    /// while the platform's own code is loaded: it is compiled once, and not in every worker.
    pub(crate) fn compile_lazily(lazily: bool) {
        v8::V8::set_flags_from_string(if lazily { "--lazy" } else { "--no-lazy" });
    }

    /// Collects the young generation, and nothing else.
    pub(crate) fn collect_young(isolate: &mut v8::Isolate) {
        // Without the flag V8 refuses. No context is made meanwhile, which would get a function for it.
        v8::V8::set_flags_from_string("--expose-gc");
        isolate.request_garbage_collection_for_testing(v8::GarbageCollectionType::Minor);
        v8::V8::set_flags_from_string("--no-expose-gc");
    }

    /// Runs what V8 has put off: finalizers, the ends of asynchronous compilations. Returns
    /// whether there was anything, in which case promises may have settled.
    pub(crate) fn run_tasks(&self, isolate: &mut v8::Isolate) -> bool {
        let mut any = false;
        while v8::Platform::pump_message_loop(&self.0, isolate, false) {
            any = true;
        }
        if any {
            isolate.perform_microtask_checkpoint();
        }
        any
    }

    /// Gives the process that is forked next random numbers of its own: `Math.random` takes its seed from
    /// here when it is first called, which it never is before a fork. Everything cryptographic asks the
    /// kernel.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub(crate) fn reseed() -> std::io::Result<()> {
        let mut seed = [0_u8; 4];
        // SAFETY: the buffer is valid for its length.
        let filled = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if usize::try_from(filled) != Ok(seed.len()) {
            return Err(std::io::Error::last_os_error());
        }
        // 0 means "choose one", which V8 did when the isolate was made.
        let seed = i32::from_ne_bytes(seed).max(1 - i32::MAX) | 1;
        // As long as the last one, so that it mostly comes to lie where that one lay: what is freed is forked
        // as well, and another worker's seed is none of the next one's business.
        v8::V8::set_flags_from_string(&format!("--random-seed={seed:011}"));
        // Setting a flag makes V8 forget the hash of all flags, which code caches are checked against.
        let _ = v8::script_compiler::cached_data_version_tag();
        Ok(())
    }
}
