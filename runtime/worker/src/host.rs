//! What the isolate may ask of the process, and what is known of the calls in it.
//!
//! JavaScript calls the functions of this module directly; each appends frames to the outgoing
//! buffer, which leaves in one write when control is back in the event loop. Hostile code that
//! gets hold of these functions can spoil its own answers, nothing else: the supervisor checks
//! every frame.

mod faults;
mod filling;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cloudserve_protocol::call::{LogLevel, epoch_ms, micros};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::limits::Limits;
use cloudserve_protocol::wire::{
    Done, FromWorker, MAX_HEAD_BYTES, MIN_LOG_LINE_BYTES, SWITCHING_PROTOCOLS, log_cut_marker,
};
use deno_core::v8;

use self::faults::{BUFFER_REFUSED, large_head, thrown, too_large};
use self::filling::Filling;
use crate::cpu::CpuTime;
use crate::given::Given;
use crate::memory::MemoryBudget;
use crate::watchdog::NEVER;

/// Room for what leaves at once, as most calls need it.
const OUT_BYTES: usize = 16 * 1024;

/// A buffer that had to hold more is given back: what an answer may be is far more than a small
/// function's memory.
const KEPT_OUT_BYTES: usize = 8 * 1024 * 1024;

/// Time for which the heap counts as what it was when it was looked at last. V8 takes microseconds
/// to say it, a tenth of a short call.
const HEAP_STAYS: Duration = Duration::from_millis(1);

/// Who is kept from the processor gets it back sooner; who is not there for longer blocks.
const LONGEST_INTERRUPTION: Duration = Duration::from_millis(20);

/// The headers that most answers have, in the order of `COMMON_HEADERS` in `bootstrap-js/response.js`.
const COMMON_HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("content-type", "text/plain; charset=utf-8"),
    ("content-type", "text/plain;charset=UTF-8"),
    ("content-type", "application/octet-stream"),
];

/// What is answered instead of a status that no answer has.
pub(crate) const NO_STATUS: u16 = 500;

/// The call in the isolate: there is one at a time.
struct CallState {
    call: u32,
    deadline: Instant,
    /// The CPU time of the process from which this call pays for it.
    cpu_start: CpuTime,
    begun: Instant,
    answered: bool,
    streamed_bytes: u64,
    /// The caller asks for a connection: the answer may be 101.
    is_upgrade: bool,
}

/// A call that ended and is not reported yet.
struct Finished {
    call: u32,
    fault: Option<Fault>,
    discard: bool,
    cpu_us: u64,
    busy_us: u32,
    at: Instant,
}

/// The host of one isolate.
pub(crate) struct Host {
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) limits: Cell<Limits>,
    /// URL of the directory sources are named relative to.
    pub(crate) source_root: RefCell<String>,
    /// URL of the directory packages are named relative to.
    pub(crate) tree_root: RefCell<String>,
    /// [`COMMON_HEADERS`], each as a list of one.
    common_headers: [HeaderBlock; COMMON_HEADERS.len()],
    out: RefCell<BytesMut>,
    /// The buffer of what leaves has grown beyond what is kept.
    out_is_large: Cell<bool>,
    call: RefCell<Option<CallState>>,
    current: Cell<u32>,
    logged_bytes: Cell<usize>,
    log_cut: Cell<bool>,
    filling: RefCell<Option<Filling>>,
    finished: RefCell<Option<Finished>>,
    /// The CPU time of the process when a call ended, until something else runs.
    cpu_at_end: Cell<Option<CpuTime>>,
    /// The process has gone to sleep since a call has begun, with a call in it.
    has_slept: Cell<bool>,
    /// When the heap was looked at last.
    heap_seen: Cell<Option<Instant>>,
}

impl Host {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            memory: MemoryBudget::new(),
            limits: Cell::new(Limits::default()),
            source_root: RefCell::default(),
            tree_root: RefCell::default(),
            common_headers: COMMON_HEADERS.map(|header| [header].into_iter().collect()),
            out: RefCell::new(BytesMut::with_capacity(OUT_BYTES)),
            out_is_large: Cell::new(false),
            call: RefCell::default(),
            current: Cell::new(0),
            logged_bytes: Cell::new(0),
            log_cut: Cell::new(false),
            filling: RefCell::default(),
            finished: RefCell::default(),
            cpu_at_end: Cell::new(None),
            has_slept: Cell::new(false),
            heap_seen: Cell::new(None),
        })
    }

    /// Appends a frame to what leaves next.
    pub(crate) fn send(&self, frame: &FromWorker) {
        self.write(|out| frame.encode(out));
    }

    fn write(&self, append: impl FnOnce(&mut BytesMut)) {
        let mut out = self.out.borrow_mut();
        append(&mut out);
        if out.len() > KEPT_OUT_BYTES {
            self.out_is_large.set(true);
        }
    }

    /// What leaves next.
    pub(crate) fn outgoing(&self) -> std::cell::RefMut<'_, BytesMut> {
        self.out.borrow_mut()
    }

    /// All that was to leave has left.
    pub(crate) fn has_sent(&self) {
        if self.out_is_large.take() {
            self.out.replace(BytesMut::with_capacity(OUT_BYTES));
        }
    }

    /// A call enters the isolate.
    pub(crate) fn begin(&self, call: u32, begun: Instant, deadline: Instant, is_upgrade: bool) {
        self.current.set(call);
        self.has_slept.set(false);
        self.memory.begin();
        self.logged_bytes.set(0);
        self.log_cut.set(false);
        let cpu_start = self.cpu_at_end.take().unwrap_or_else(|| CpuTime::ask(begun));
        let state = CallState {
            call,
            deadline,
            cpu_start,
            begun,
            answered: false,
            streamed_bytes: 0,
            is_upgrade,
        };
        self.call.replace(Some(state));
    }

    /// The deadline of the call in the isolate.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.call.borrow().as_ref().map(|state| state.deadline)
    }

    /// The CPU time of the process at which the call has used up its own.
    pub(crate) fn cpu_until_us(&self) -> u64 {
        let budget_us = u64::from(self.limits.get().cpu_ms) * 1_000;
        self.call.borrow().as_ref().map_or(NEVER, |state| state.cpu_start.us + budget_us)
    }

    /// Whether a call is in the isolate.
    pub(crate) fn has_calls(&self) -> bool {
        self.call.borrow().is_some()
    }

    /// The process waits from now on: what it uses until the next call is not that call's.
    pub(crate) fn rest(&self) {
        self.cpu_at_end.set(None);
        self.has_slept.set(self.has_calls());
    }

    /// Whether no call is in the isolate, nor one that ended and is not reported.
    pub(crate) fn is_free(&self) -> bool {
        !self.has_calls() && self.finished.borrow().is_none()
    }

    /// Whether the last call has just ended and is not reported yet.
    pub(crate) fn is_between_calls(&self) -> bool {
        !self.has_calls() && self.finished.borrow().is_some()
    }

    /// When the last call has ended, if that is not reported yet.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.finished.borrow().as_ref().map(|finished| finished.at)
    }

    /// Ends a call. The frame is written by `report_finished`, which can see the heap.
    fn end(&self, call: u32, fault: Option<Fault>, discard: bool) {
        if let Some(state) = self.call.borrow_mut().take_if(|state| state.call == call) {
            self.filling.take();
            let at = Instant::now();
            let start = state.cpu_start;
            let cpu = if self.has_slept.get() { CpuTime::ask(at) } else { start.later(at) };
            // What was counted too much before is not counted again.
            let cpu_us = cpu.us.saturating_sub(start.us);
            self.cpu_at_end.set(Some(cpu));
            let busy = at.saturating_duration_since(state.begun);
            // Without having slept it was at work, or the core was somebody else's.
            let was_awake = !self.has_slept.get() && busy < LONGEST_INTERRUPTION;
            let busy_us = micros(busy);
            let busy_us = if was_awake { busy_us.min(cpu_us) } else { busy_us };
            let busy_us = u32::try_from(busy_us).unwrap_or(u32::MAX);
            self.finished.replace(Some(Finished { call, fault, discard, cpu_us, busy_us, at }));
        }
    }

    /// Ends the call, if there is one, after which the worker exits.
    pub(crate) fn end_all(&self, fault: &Fault) {
        let call = self.call.borrow().as_ref().map(|state| state.call);
        if let Some(call) = call {
            self.end(call, Some(fault.clone()), true);
        }
    }

    /// Writes the frame of the call that ended. Returns whether the worker must go.
    pub(crate) fn report_finished(&self, isolate: &mut v8::Isolate) -> bool {
        let Some(finished) = self.finished.take() else { return false };
        let Finished { call, fault, discard, cpu_us, busy_us, at } = finished;
        self.current.set(0);
        self.look_at_heap(isolate, at);
        let memory_bytes = self.memory.peak_bytes() as u64;
        let done = Done { fault, discard, cpu_us, busy_us, memory_bytes };
        self.send(&FromWorker::Done { call, done });
        discard
    }

    /// Short calls that follow each other at once share a look, unless V8 has outgrown its limit
    /// meanwhile. Buffers are granted on it, too, but may be off by far more than a heap grows in
    /// that time; what bounds the heap itself does not ask.
    fn look_at_heap(&self, isolate: &mut v8::Isolate, now: Instant) {
        let seen = self.heap_seen.get();
        let is_old = seen.is_none_or(|at| now.saturating_duration_since(at) >= HEAP_STAYS);
        if is_old || self.memory.heap_has_outgrown() {
            self.memory.saw_heap(isolate.get_heap_statistics().used_heap_size());
            self.heap_seen.set(Some(now));
        }
    }

    /// A line of the current call's log, within its bound.
    pub(crate) fn log(&self, level: LogLevel, mut message: String) {
        if self.log_cut.get() {
            return;
        }
        let limit = self.limits.get().log_bytes;
        let left = (limit as usize).saturating_sub(self.logged_bytes.get());
        let cost = message.len().max(MIN_LOG_LINE_BYTES);
        let is_cut = cost > left;
        message.truncate(message.floor_char_boundary(left));
        self.logged_bytes.set(self.logged_bytes.get() + cost);
        if !(is_cut && message.is_empty()) {
            self.send_log(level, message);
        }
        if is_cut {
            self.log_cut.set(true);
            self.send_log(LogLevel::Warn, log_cut_marker(limit));
        }
    }

    fn send_log(&self, level: LogLevel, message: String) {
        self.send(&FromWorker::Log {
            call: self.current.get(),
            level,
            timestamp_ms: epoch_ms(),
            message,
        });
    }

    /// The list of this number, of those that most answers have.
    pub(crate) fn common_headers(&self, number: u32) -> HeaderBlock {
        self.common_headers.get(number as usize).cloned().unwrap_or_default()
    }

    /// The whole answer, or its head.
    pub(crate) fn answer(
        &self,
        isolate: &v8::Isolate,
        call: u32,
        status: u16,
        headers: &HeaderBlock,
        body: &Given<'_>,
        end: bool,
    ) {
        let limit = self.limits.get().response_body_bytes;
        if end && body.len() as u64 > limit {
            self.end(call, Some(too_large("responseBodyBytes", limit)), false);
            return;
        }
        if headers.as_bytes().len() > MAX_HEAD_BYTES {
            // The source of a stream would go on.
            self.end(call, Some(large_head()), !end);
            return;
        }
        let mut under_way = self.call.borrow_mut();
        if let Some(state) = under_way.as_mut().filter(|c| c.call == call && !c.answered) {
            state.answered = true;
            let is_odd = status == SWITCHING_PROTOCOLS && !state.is_upgrade;
            let status = if is_odd { NO_STATUS } else { status };
            self.write(|out| {
                FromWorker::begin_head(out, call, status, headers, end, body.len());
                body.append_to(isolate, out);
            });
        }
    }

    /// A piece of the answer's body.
    pub(crate) fn chunk(&self, isolate: &v8::Isolate, call: u32, bytes: &Given<'_>, end: bool) {
        let limit = self.limits.get().streamed_response_bytes;
        let streamed = self.call.borrow_mut().as_mut().filter(|c| c.call == call).map(|state| {
            state.streamed_bytes += bytes.len() as u64;
            state.streamed_bytes
        });
        match streamed {
            Some(streamed) if streamed > limit => {
                self.end(call, Some(too_large("streamedResponseBytes", limit)), true);
            }
            Some(_) => self.write(|out| {
                FromWorker::begin_chunk(out, call, end, bytes.len());
                bytes.append_to(isolate, out);
            }),
            None => {}
        }
    }

    /// The answer's body is complete, and this comes after it.
    pub(crate) fn trailers(&self, call: u32, trailers: HeaderBlock) {
        if trailers.as_bytes().len() > MAX_HEAD_BYTES {
            self.end(call, Some(large_head()), true);
        } else if self.is_under_way(call) {
            self.send(&FromWorker::Trailers { call, trailers });
        }
    }

    /// The caller may send this much more of the request's body. What is read of one after its call
    /// asks for nothing.
    pub(crate) fn credit(&self, call: u32, bytes: u32) {
        if self.is_under_way(call) {
            self.send(&FromWorker::Credit { call, bytes });
        }
    }

    fn is_under_way(&self, call: u32) -> bool {
        self.call.borrow().as_ref().is_some_and(|state| state.call == call)
    }

    /// Whether the current call's log is over its bound.
    pub(crate) fn log_is_cut(&self) -> bool {
        self.log_cut.get()
    }

    /// The call is over and went well.
    pub(crate) fn done(&self, call: u32) {
        self.end(call, None, false);
    }

    /// The fault of an error that user code threw.
    pub(crate) fn thrown(&self, class: FaultClass, message: String, stack: &str) -> Fault {
        thrown(class, message, stack, [&self.source_root.borrow(), &self.tree_root.borrow()])
    }

    /// The handler threw.
    pub(crate) fn failed(&self, call: u32, message: String, stack: String) {
        let fault = self.thrown(FaultClass::HandlerError, message, &stack);
        let is_refused = self.memory.was_refused() && fault.message.contains(BUFFER_REFUSED);
        if is_refused {
            let fault = Fault::memory_limit(self.limits.get().memory_mb);
            self.end(call, Some(fault.with_detail(stack)), true);
        } else {
            self.end(call, Some(fault), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{process_cpu_us, thread_cpu_us};

    #[test]
    fn empty_lines_are_bounded() {
        let host = Host::new();
        let written = |lines: usize| {
            for _ in 0..lines {
                host.log(LogLevel::Info, String::new());
            }
            host.outgoing().len()
        };
        let limit = host.limits.get().log_bytes as usize;
        let full = written(limit / MIN_LOG_LINE_BYTES + 1);
        assert!(host.log_is_cut());
        assert_eq!(written(1_000), full);
    }

    #[test]
    fn a_long_call_counts_with_the_time_it_has_computed() {
        let host = Host::new();
        let cpu_us_of = |computes_us: u64| {
            let now = Instant::now();
            host.begin(1, now, now, false);
            let until_us = thread_cpu_us() + computes_us;
            while thread_cpu_us() < until_us {}
            host.done(1);
            host.finished.take().unwrap().cpu_us
        };
        cpu_us_of(0);
        assert!(cpu_us_of(3_000) >= 2_900, "after a short one, which may count with all its time");
        host.rest();
        assert!(cpu_us_of(3_000) >= 3_000);
    }

    #[test]
    fn what_other_threads_use_counts_though_calls_are_short() {
        let host = Host::new();
        let until = Instant::now() + Duration::from_millis(100);
        let other = std::thread::spawn(move || while Instant::now() < until {});
        let before_us = process_cpu_us();
        let mut counted_us = 0;
        while Instant::now() < until {
            let now = Instant::now();
            host.begin(1, now, now, false);
            host.done(1);
            counted_us += host.finished.take().unwrap().cpu_us;
        }
        let used_us = process_cpu_us() - before_us;
        other.join().unwrap();
        assert!(counted_us * 10 >= used_us * 8, "{counted_us} of {used_us}");
    }
}
