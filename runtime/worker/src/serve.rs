//! The life of a worker: boot, load, serve, end.
//!
//! One loop on one thread: take frames off the socket into the isolate, let the isolate's event
//! loop run, write what it said. Whatever leaves the isolate in doubt ends the loop and with it
//! the process.

mod load;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cloudserve_protocol::call::{LogLevel, micros};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::wire::{EXIT_UNCAUGHT, FromWorker, MAX_CODE_CACHE_BYTES, Ready, ToWorker};
use deno_core::error::{CoreError, CoreErrorKind};
use deno_core::v8;
use deno_runtime::deno_os::WatcherExited;
use deno_runtime::fmt_errors::format_js_error;

use crate::boot::{Booted, Unsettled};
use crate::bridge::IncomingCall;
use crate::claims::Claims;
use crate::code_cache;
use crate::control::{Control, ControlError};
use crate::engine::Engine;
use crate::host::Host;
use crate::jail::{self, PlatformRules};
use crate::leftovers::Leftovers;
use crate::pace::Pace;
use crate::watchdog::{Fired, NEVER, Watchdog};

/// How long past the watchdog's deadline the event loop looks itself: promises that never settle.
const DEADLINE_SLACK: Duration = Duration::from_millis(1);

/// A worker that has no function by then was not made for a call that waits.
const AT_ONCE: Duration = Duration::from_millis(20);

/// Calls in a row that come before what V8 has put off: finalizers are among it, which free what V8 does
/// not see.
const CALLS_BEFORE: u32 = 64;

const BUSY_BETWEEN_CALLS: &str =
    "code that went on after its call did not yield within limits.timeoutMs and was ended";

/// Runs a booted worker, with the rules for files that there are; returns its exit code.
pub(crate) async fn run(
    socket: UnixStream,
    isolate: Unsettled,
    rules: Option<PlatformRules>,
    started: Instant,
) -> i32 {
    let (host, handle) = isolate.parts();
    let Ok(mut control) = Control::new(socket) else { return 2 };
    let watchdog = match Watchdog::new(handle, host.memory.clone()) {
        Ok(watchdog) => watchdog,
        Err(error) => {
            eprintln!("cloudserve-worker: its memory cannot be watched: {error}");
            return 2;
        }
    };
    // Without it no call ever waits here.
    let (claims, claims_file) = Claims::make().ok().unzip();
    host.send(&FromWorker::Ready(Ready {
        claims: claims_file.as_ref().map(AsRawFd::as_raw_fd),
        boot_us: micros(started.elapsed()),
        code_cache_tag: format!(
            "{}-{:08x}",
            v8::VERSION_STRING,
            v8::script_compiler::cached_data_version_tag()
        ),
    }));
    control.flush_blocking(&mut host.outgoing());

    // An assignment that is on its way takes as long.
    let mut booted = isolate.settle();
    let prepared = jail::prepare(rules);
    let first = match tokio::time::timeout(AT_ONCE, poll_fn(|cx| control.poll_frame(cx))).await {
        Ok(frame) => frame,
        Err(_elapsed) => {
            booted.rehearse().await;
            poll_fn(|cx| control.poll_frame(cx)).await
        }
    };
    let assignment = match first {
        Ok(ToWorker::Assign(assignment)) => assignment,
        Ok(ToWorker::Drain) | Err(ControlError::Closed) => return 0,
        Ok(_) => return 2,
        Err(error) => {
            eprintln!("cloudserve-worker: {error}");
            return 2;
        }
    };
    // The supervisor has it by now.
    drop(claims_file);
    let mut serving = Serving {
        host,
        control,
        booted,
        watchdog,
        claims,
        waiting: VecDeque::new(),
        put_off: 0,
        code_cache: code_cache::Schedule::never(),
        leftovers: Leftovers::default(),
        pace: Pace::new(Duration::from_micros(assignment.lone_call_watch_us.into())),
        draining: false,
    };
    let code = match serving.load(&assignment, prepared).await {
        Ok(()) => serving.serve().await,
        Err(fault) => {
            serving.host.send(&FromWorker::LoadFailed(fault));
            0
        }
    };
    let host = serving.host.clone();
    serving.control.flush_blocking(&mut host.outgoing());
    // Tearing down an isolate takes milliseconds, and everything in it dies anyway.
    std::mem::forget(serving);
    code
}

struct Serving {
    host: Rc<Host>,
    control: Control,
    booted: Booted,
    watchdog: Watchdog,
    claims: Option<Claims>,
    /// Calls that came while another one was under way, in order.
    waiting: VecDeque<IncomingCall>,
    /// Calls that have come before what V8 has put off.
    put_off: u32,
    code_cache: code_cache::Schedule,
    leftovers: Leftovers,
    pace: Pace,
    draining: bool,
}

impl Serving {
    fn exit_requested(&mut self) -> Option<i32> {
        let exited = self.booted.worker.js_runtime.op_state().borrow().has::<WatcherExited>();
        exited.then(|| self.booted.worker.exit_code())
    }

    /// Serves calls until there is a reason not to. Returns the exit code.
    async fn serve(&mut self) -> i32 {
        let mut timer = pin!(tokio::time::sleep(Duration::MAX));
        let mut timer_at: Option<Instant> = None;
        poll_fn(|cx| {
            let is_flushed = match self.turn(cx) {
                Turn::Ended(code) => return Poll::Ready(code),
                Turn::Waits { is_flushed } => is_flushed,
            };
            match self.host.next_deadline() {
                None => {
                    self.watchdog.disarm();
                    if self.draining && is_flushed {
                        return Poll::Ready(0);
                    }
                    if self.code_cache.poll_due(cx).is_ready() {
                        self.make_code_cache();
                        if let Poll::Ready(Err(_)) =
                            self.control.poll_flush(cx, &mut self.host.outgoing())
                        {
                            return Poll::Ready(0);
                        }
                    }
                }
                Some(deadline) => {
                    self.watchdog.arm(deadline, self.host.cpu_until_us());
                    if timer_at.is_none_or(|at| at > deadline) {
                        timer_at = Some(deadline);
                        timer.as_mut().reset((deadline + DEADLINE_SLACK).into());
                    }
                    while timer_at.is_some() && timer.as_mut().poll(cx).is_ready() {
                        if Instant::now() >= deadline {
                            self.host.end_all(&Fault::timeout(self.host.limits.get().timeout_ms));
                            let isolate = self.booted.worker.js_runtime.v8_isolate();
                            self.host.report_finished(isolate);
                            return Poll::Ready(0);
                        }
                        timer_at = Some(deadline);
                        timer.as_mut().reset((deadline + DEADLINE_SLACK).into());
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes in what has come, and runs calls one after the other until there is something to wait
    /// for. What a call has to say leaves before the next one begins: it is over for its caller,
    /// whatever the next one does to this process.
    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        loop {
            loop {
                match self.control.poll_frame(cx) {
                    Poll::Ready(Ok(frame)) => self.take(frame),
                    Poll::Ready(Err(_)) => return Turn::Ended(0),
                    Poll::Pending => break,
                }
            }
            // Between calls, too, code has to come back: the next call would pay for it.
            if !self.host.has_calls() {
                let timeout = Duration::from_millis(self.host.limits.get().timeout_ms.into());
                let now = self.host.ended_at().unwrap_or_else(Instant::now);
                self.watchdog.arm(now + timeout, NEVER);
            }
            // What V8 has put off, garbage for the most part, nobody waits for: the next calls come first.
            let is_next =
                !self.host.has_calls() && !self.waiting.is_empty() && self.put_off < CALLS_BEFORE;
            self.put_off = if is_next { self.put_off + 1 } else { 0 };
            let mut polled =
                if is_next { self.booted.poll_event_loop(cx) } else { self.booted.poll(cx) };
            if matches!(polled, Poll::Ready(Ok(()))) && self.host.has_calls() {
                let Booted { worker, bridge, .. } = &mut self.booted;
                if bridge.idle(&mut worker.js_runtime) {
                    worker.js_runtime.v8_isolate().perform_microtask_checkpoint();
                    polled = self.booted.poll(cx);
                }
            }
            let goes_on = polled.is_pending();
            if let Some(code) = self.verdict(match polled {
                Poll::Ready(Err(error)) => Some(error),
                _ => None,
            }) {
                return Turn::Ended(code);
            }
            if goes_on && self.host.is_between_calls() {
                let Booted { worker, bridge, .. } = &mut self.booted;
                self.leftovers.look(&self.host, &mut worker.js_runtime, bridge);
            }
            if self.host.report_finished(self.booted.worker.js_runtime.v8_isolate()) {
                return Turn::Ended(0);
            }
            let is_flushed = match self.control.poll_flush(cx, &mut self.host.outgoing()) {
                Poll::Ready(Err(_)) => return Turn::Ended(0),
                flushed => flushed.is_ready(),
            };
            if is_flushed {
                self.host.has_sent();
                if !self.host.has_calls() && self.host.memory.has_many_new() {
                    Engine::collect_young(self.booted.worker.js_runtime.v8_isolate());
                }
            }
            // A caller that reads slowly is waited for: its answer is in the way of the next.
            if self.host.has_calls() || !is_flushed || !self.begin_next() {
                if is_next && is_flushed {
                    continue;
                }
                self.host.rest();
                if is_flushed && !self.host.has_calls() && !self.draining {
                    self.watch(cx);
                }
                return Turn::Waits { is_flushed };
            }
        }
    }

    /// Looks for the next call if it is likely to come at once. The event loop gets its turn before
    /// the call does: there may be other things that have come.
    fn watch(&mut self, cx: &mut Context<'_>) {
        let Some(time) = self.pace.rests(Instant::now()) else { return };
        // What the last call was allowed does not count for whoever waits.
        self.watchdog.disarm();
        if self.control.watch(time) {
            self.code_cache.busy();
            // It wakes whoever is polled here when the event loop has looked.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        } else {
            self.pace.missed();
        }
    }

    /// Begins the call that has waited longest. Whether there was one.
    fn begin_next(&mut self) -> bool {
        while let Some(next) = self.waiting.pop_front() {
            let is_ours =
                !next.revocable || self.claims.as_ref().is_some_and(|c| c.claim(next.call));
            if is_ours {
                self.begin(&next);
                return true;
            }
        }
        false
    }

    fn begin(&mut self, incoming: &IncomingCall) {
        let now = Instant::now();
        // Also of a call that is over before the loop looks.
        self.code_cache.busy();
        self.host.begin(incoming.call, now, incoming.deadline, incoming.is_upgrade());
        let earliest = self.host.next_deadline().unwrap_or(incoming.deadline);
        self.watchdog.arm(earliest, self.host.cpu_until_us());
        self.booted.bridge.request(&mut self.booted.worker.js_runtime, incoming, now);
        self.booted.worker.js_runtime.v8_isolate().perform_microtask_checkpoint();
    }

    fn make_code_cache(&mut self) {
        let url = self.booted.loader.bundle_url();
        let made =
            url.to_file_path().ok().and_then(|path| std::fs::read_to_string(path).ok()).and_then(
                |source| code_cache::make(&mut self.booted.worker.js_runtime, &url, &source),
            );
        // The frame's kind counts as well.
        if let Some(bytes) = made.filter(|bytes| bytes.len() < MAX_CODE_CACHE_BYTES) {
            self.host.send(&FromWorker::CodeCache(bytes.into()));
        }
    }

    fn take(&mut self, frame: ToWorker) {
        let runtime = &mut self.booted.worker.js_runtime;
        let bridge = &self.booted.bridge;
        match frame {
            ToWorker::Request {
                call,
                execution_id,
                budget_ms,
                method,
                target,
                headers,
                body,
                end,
                revocable,
                is_lone,
            } => {
                let now = Instant::now();
                let is_free = self.host.is_free();
                self.pace.came(now, is_lone && is_free);
                let incoming = IncomingCall {
                    call,
                    execution_id,
                    method: method.into_owned(),
                    target: target.into_owned(),
                    headers,
                    body,
                    end,
                    revocable,
                    deadline: now + Duration::from_millis(budget_ms.into()),
                };
                self.waiting.push_back(incoming);
                // What the call before has to say leaves first: `turn` begins this one then. One
                // that cannot be taken back comes when nothing is left to say, and what follows of
                // its body is taken only by a call that has begun.
                if is_free && (!revocable || self.host.outgoing().is_empty()) {
                    self.begin_next();
                }
                return;
            }
            ToWorker::Body { call, bytes, end } => {
                if !self.host.take_piece(call, &bytes, end) {
                    self.host.memory.got_new(bytes.len());
                    bridge.body(runtime, call, &bytes, end);
                } else if end {
                    bridge.body(runtime, call, &[], true);
                } else {
                    return;
                }
            }
            ToWorker::Trailers { call, trailers } => bridge.trailers(runtime, call, &trailers),
            ToWorker::BodyAborted { call } => bridge.body_aborted(runtime, call),
            ToWorker::Credit { call, bytes } => bridge.credit(runtime, call, bytes),
            ToWorker::Cancel { call } => bridge.cancel(runtime, call),
            ToWorker::Drain => self.draining = true,
            ToWorker::Assign(_) | ToWorker::Watched => {}
        }
        runtime.v8_isolate().perform_microtask_checkpoint();
    }

    /// Whether the isolate may go on; if not, ends its calls and says the exit code.
    fn verdict(&mut self, error: Option<CoreError>) -> Option<i32> {
        let limits = self.host.limits.get();
        let (fault, code) = if self.host.memory.exceeded() {
            (Fault::memory_limit(limits.memory_mb), 0)
        } else if let Some(fired) = self.watchdog.fired() {
            if !self.host.has_calls() {
                self.host.log(LogLevel::Error, BUSY_BETWEEN_CALLS.to_owned());
            }
            let fault = match fired {
                Fired::Deadline => Fault::timeout(limits.timeout_ms),
                Fired::Cpu => Fault::cpu_limit(limits.cpu_ms),
            };
            (fault, 0)
        } else if let Some(code) = self.exit_requested() {
            let message = format!("the function ended its process with exit code {code}");
            (Fault::new(FaultClass::Crashed, message), code)
        } else {
            let (message, stack) = described(&error?);
            let fault = self.host.thrown(FaultClass::HandlerError, message, &stack);
            // Between calls there is no fault to carry it.
            if !self.host.has_calls() {
                self.host.log(LogLevel::Error, fault.detail.clone().unwrap_or_default());
            }
            (fault, EXIT_UNCAUGHT)
        };
        self.host.end_all(&fault);
        let isolate = self.booted.worker.js_runtime.v8_isolate();
        isolate.cancel_terminate_execution();
        self.host.report_finished(isolate);
        Some(code)
    }
}

/// How a turn of the loop ended.
enum Turn {
    /// Nothing is left to do for now.
    Waits { is_flushed: bool },
    /// The process is to end with this code.
    Ended(i32),
}

/// `[one line, stack]` of an error that reached the event loop.
fn described(error: &CoreError) -> (String, String) {
    let whole = match error.as_kind() {
        CoreErrorKind::Js(js) => {
            let stack = format_js_error(js, None);
            let line = js.exception_message.trim_start_matches("Uncaught ");
            let line = line.trim_start_matches("(in promise) ");
            return (line.lines().next().unwrap_or_default().to_owned(), stack);
        }
        _ => error.to_string(),
    };
    (whole.lines().next().unwrap_or_default().to_owned(), whole)
}
