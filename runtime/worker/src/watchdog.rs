//! What watches over code that does not come back: a thread that terminates JavaScript,
//! WebAssembly and regular expressions when the deadline has passed or the CPU time is used up,
//! and ends the process when its resident memory is beyond all bounds.
//!
//! Arming costs two atomic stores. While calls come, the thread looks every [`TICK`], so arming
//! wakes nobody; after [`AWAKE`] without a call it sleeps until it is armed again.
//!
//! Native code that runs on after a termination is ended: by the supervisor when the deadline has
//! passed, by this thread when the CPU time is used up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use cloudserve_protocol::wire::EXIT_CPU_LIMIT;
use deno_core::v8;

use crate::cpu::{process_cpu_us, thread_cpu_us};
use crate::memory::{MemoryBudget, Resident, exit_out_of_memory, give_back_freed};

const TICK: Duration = Duration::from_millis(10);

const AWAKE: Duration = Duration::from_secs(1);

const STACK_BYTES: usize = 64 * 1024;

/// What terminated code has to unwind.
const GRACE: Duration = Duration::from_millis(250);

/// No deadline; no bound of CPU time.
pub(crate) const NEVER: u64 = u64::MAX;

/// Why execution was terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    /// The deadline has passed.
    Deadline,
    /// The CPU time is used up.
    Cpu,
}

const NOT_FIRED: u8 = 0;
const FIRED_DEADLINE: u8 = 1;
const FIRED_CPU: u8 = 2;

struct Shared {
    /// Milliseconds after `epoch`.
    deadline_ms: AtomicU64,
    /// CPU time of the process.
    cpu_until_us: AtomicU64,
    is_parked: AtomicBool,
    fired: AtomicU8,
    epoch: Instant,
    memory: Arc<MemoryBudget>,
    statm: File,
}

/// The watchdog of one isolate.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    isolate: v8::IsolateHandle,
    thread: Option<Thread>,
}

impl Watchdog {
    /// One that does not watch yet. Before the jail, which closes `/proc`.
    pub(crate) fn new(isolate: v8::IsolateHandle, memory: Arc<MemoryBudget>) -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared::new(memory)?), isolate, thread: None })
    }

    /// Makes its thread, in the jail: what confines a thread is inherited by those it makes.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let (watched, isolate) = (self.shared.clone(), self.isolate.clone());
        let thread = thread().spawn(move || watch(&watched, &isolate))?;
        self.thread = Some(thread.thread().clone());
        Ok(())
    }

    /// Execution is terminated at this instant, or when the process has used this much CPU time,
    /// unless it is disarmed before.
    pub(crate) fn arm(&self, deadline: Instant, cpu_until_us: u64) {
        let ms = deadline.saturating_duration_since(self.shared.epoch).as_millis();
        let ms = u64::try_from(ms).unwrap_or(NEVER - 1) + 1;
        self.shared.cpu_until_us.store(cpu_until_us, Ordering::SeqCst);
        self.shared.deadline_ms.store(ms, Ordering::SeqCst);
        if self.shared.is_parked.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.unpark();
        }
    }

    pub(crate) fn disarm(&self) {
        self.shared.deadline_ms.store(NEVER, Ordering::SeqCst);
    }

    /// Why it terminated execution, if it did.
    pub(crate) fn fired(&self) -> Option<Fired> {
        match self.shared.fired.load(Ordering::SeqCst) {
            FIRED_DEADLINE => Some(Fired::Deadline),
            FIRED_CPU => Some(Fired::Cpu),
            _ => None,
        }
    }

    /// Takes the memory of this moment as what the process needs without a function.
    pub(crate) fn take_baseline(&self) {
        if let Ok(resident) = self.shared.resident() {
            self.shared.memory.take_baseline(resident);
        }
    }
}

fn thread() -> Builder {
    Builder::new().name("watchdog".to_owned()).stack_size(STACK_BYTES)
}

/// Makes a thread and waits for its end. For the first one of a process the C library looks up what it
/// needs, in pages that nothing else touches, and makes a stack and a heap: forks find all that.
pub(crate) fn rehearse() {
    if let Ok(thread) = thread().spawn(|| {}) {
        // It does not panic.
        let _ = thread.join();
    }
}

impl Shared {
    fn new(memory: Arc<MemoryBudget>) -> io::Result<Self> {
        Ok(Self {
            deadline_ms: AtomicU64::new(NEVER),
            cpu_until_us: AtomicU64::new(NEVER),
            is_parked: AtomicBool::new(false),
            fired: AtomicU8::new(NOT_FIRED),
            epoch: Instant::now(),
            memory,
            statm: File::open("/proc/self/statm")?,
        })
    }

    fn resident(&self) -> io::Result<Resident> {
        let mut text = [0; 128];
        let n = self.statm.read_at(&mut text, 0)?;
        Resident::parse(&text[..n]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Whether the process holds more than it may, what was freed and is kept given back.
    fn holds_too_much(&self) -> bool {
        let is_beyond = || self.resident().is_ok_and(|resident| self.memory.is_beyond(resident));
        is_beyond() && {
            give_back_freed();
            is_beyond()
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// Sleeps until there is something to watch; not at all if there was a moment ago.
    fn sleep_while_idle(&self) {
        self.memory.give_back();
        self.is_parked.store(true, Ordering::SeqCst);
        // Armed before the store: whoever did saw that nobody sleeps.
        while self.deadline_ms.load(Ordering::SeqCst) == NEVER {
            std::thread::park();
        }
        self.is_parked.store(false, Ordering::SeqCst);
    }
}

fn watch(shared: &Shared, isolate: &v8::IsolateHandle) {
    let mut awake_until = Instant::now() + AWAKE;
    let mut cpu_fired_at = None;
    loop {
        let deadline_ms = shared.deadline_ms.load(Ordering::SeqCst);
        if deadline_ms == NEVER {
            if Instant::now() < awake_until {
                std::thread::park_timeout(TICK);
            } else {
                shared.sleep_while_idle();
            }
            continue;
        }
        awake_until = Instant::now() + AWAKE;
        if shared.holds_too_much() {
            exit_out_of_memory();
        }
        let left_ms = deadline_ms.saturating_sub(shared.now_ms());
        match shared.fired.load(Ordering::SeqCst) {
            NOT_FIRED => {
                // Its own share is not the function's.
                let used_us = process_cpu_us().saturating_sub(thread_cpu_us());
                let cpu_is_used_up = used_us >= shared.cpu_until_us.load(Ordering::SeqCst);
                let what = if left_ms == 0 { FIRED_DEADLINE } else { FIRED_CPU };
                // Disarmed meanwhile: the call is over.
                let is_armed = shared.deadline_ms.load(Ordering::SeqCst) == deadline_ms;
                if is_armed && (left_ms == 0 || cpu_is_used_up) {
                    shared.fired.store(what, Ordering::SeqCst);
                    isolate.terminate_execution();
                    cpu_fired_at = (what == FIRED_CPU).then(Instant::now);
                }
            }
            _ if cpu_fired_at.is_some_and(|at| at.elapsed() >= GRACE) => exit_cpu_limit(),
            _ => {}
        }
        let pause = if left_ms == 0 { TICK } else { TICK.min(Duration::from_millis(left_ms)) };
        std::thread::park_timeout(pause);
    }
}

fn exit_cpu_limit() -> ! {
    // SAFETY: an exit that runs no destructors.
    unsafe { libc::_exit(EXIT_CPU_LIMIT) }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    const MB: usize = 1024 * 1024;

    #[test]
    fn nobody_is_ended_for_what_the_process_keeps_of_what_was_freed() {
        let memory = MemoryBudget::new();
        let shared = Shared::new(memory.clone()).unwrap();
        memory.take_baseline(shared.resident().unwrap());
        memory.assign(1);
        assert!(!shared.holds_too_much());
        memory.got_new(128 * MB);
        assert!(memory.has_many_new(), "from now on it keeps what is freed");
        let buffers: Vec<_> = (0..128).map(|_| black_box(vec![1_u8; MB])).collect();
        // What comes behind them is still in use.
        let last = black_box(vec![1_u8; MB / 2]);
        drop(buffers);
        assert!(shared.memory.is_beyond(shared.resident().unwrap()));
        assert!(!shared.holds_too_much());
        drop(last);
    }
}
