//! The wall clock of code that does not come back: a thread that terminates JavaScript,
//! WebAssembly and regular expressions when the deadline has passed.
//!
//! Arming costs an atomic store. The thread sleeps until the deadline it last saw and then looks
//! again, so a call that finishes in time wakes nobody; only a deadline earlier than the thread's
//! next look needs a wake-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use deno_core::v8;

const NEVER: u64 = u64::MAX;

struct Shared {
    /// Milliseconds after `epoch`.
    deadline_ms: AtomicU64,
    next_look_ms: AtomicU64,
    fired: AtomicBool,
    epoch: Instant,
}

/// The watchdog of one isolate.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Watchdog {
    pub(crate) fn start(isolate: v8::IsolateHandle) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            deadline_ms: AtomicU64::new(NEVER),
            next_look_ms: AtomicU64::new(NEVER),
            fired: AtomicBool::new(false),
            epoch: Instant::now(),
        });
        let watched = shared.clone();
        let thread = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || watch(&watched, &isolate))?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    /// Execution is terminated at this instant unless it is disarmed before.
    pub(crate) fn arm(&self, deadline: Instant) {
        let ms = deadline.saturating_duration_since(self.shared.epoch).as_millis();
        let ms = u64::try_from(ms).unwrap_or(NEVER - 1) + 1;
        self.shared.deadline_ms.store(ms, Ordering::SeqCst);
        if ms < self.shared.next_look_ms.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    pub(crate) fn disarm(&self) {
        self.shared.deadline_ms.store(NEVER, Ordering::SeqCst);
    }

    /// Whether it terminated execution.
    pub(crate) fn fired(&self) -> bool {
        self.shared.fired.load(Ordering::SeqCst)
    }
}

fn watch(shared: &Shared, isolate: &v8::IsolateHandle) {
    loop {
        let deadline_ms = shared.deadline_ms.load(Ordering::SeqCst);
        shared.next_look_ms.store(deadline_ms, Ordering::SeqCst);
        // Armed between the load and the store: look again, the caller saw the old next look.
        if shared.deadline_ms.load(Ordering::SeqCst) != deadline_ms {
            continue;
        }
        if deadline_ms == NEVER {
            std::thread::park();
            continue;
        }
        let now_ms = u64::try_from(shared.epoch.elapsed().as_millis()).unwrap_or(NEVER);
        if now_ms >= deadline_ms {
            shared.fired.store(true, Ordering::SeqCst);
            isolate.terminate_execution();
            return;
        }
        std::thread::park_timeout(Duration::from_millis(deadline_ms - now_ms));
    }
}
