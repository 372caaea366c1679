//! From the assignment to a handler: the jail, the module, how it is called.

use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::limits::EventFormat;
use cloudserve_protocol::wire::{Assignment, FromWorker, Jailed, Loaded, ToWorker};
use deno_core::error::{CoreError, CoreErrorKind};
use deno_core::v8;

use super::{Serving, described, micros};
use crate::assign;
use crate::boot::Booted;
use crate::code_cache::Schedule;
use crate::jail::{Entered, JailError, Prepared};
use crate::leftovers::Leftovers;
use crate::watchdog::NEVER;

/// How long a module that has started a server may wait for something before that counts as waiting for
/// the server's end. Long enough for what fails at once to fail the load; each cold start takes as long.
const SERVES_AFTER: Duration = Duration::from_millis(100);

impl Serving {
    /// Makes this worker the function's.
    pub(super) async fn load(
        &mut self,
        assignment: &Assignment,
        prepared: Result<Prepared, JailError>,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut confined = assign::confine(prepared, assignment)?;
        self.watchdog.start().map_err(|error| {
            let what = "the function's process cannot be watched";
            Fault::new(FaultClass::SandboxUnavailable, what).with_detail(error.to_string())
        })?;
        let listener = self.report_jail(&mut confined.jail);
        // The supervisor takes the listener over meanwhile. V8 sees nothing of the function's before
        // it is closed, not even its code cache: whoever holds it answers for the kernel.
        let assigned = assign::assign(&mut self.booted, assignment, confined);
        self.hand_over(listener).await?;
        assigned?;
        self.watchdog.take_baseline();
        let budget = Duration::from_millis(assignment.load_budget_ms.into());
        self.watchdog.arm(begun + budget, NEVER);
        let found = tokio::time::timeout(budget.saturating_sub(begun.elapsed()), async {
            let namespace = self.evaluate().await?;
            self.handler_of(&namespace).await
        });
        let handler_kind = match found.await {
            Ok(Ok(handler_kind)) => handler_kind,
            Ok(Err(error)) => return Err(self.startup_fault(&error, assignment.load_budget_ms)),
            Err(_elapsed) => return Err(slow_start(assignment.load_budget_ms)),
        };
        self.watchdog.disarm();
        let handler_kind = handler_kind.ok_or_else(|| {
            Fault::new(
                FaultClass::StartupError,
                "the module exports no handler and starts no server: export default a function, \
                 an object with `fetch`, functions named GET, POST, ..., or a value",
            )
        })?;
        let format = self.host.limits.get().event_format;
        if handler_kind == HandlerKind::Event
            && format == EventFormat::Auto
            && self.booted.loader.needs().aws_events
        {
            self.booted.bridge.use_lambda_events(&mut self.booted.worker.js_runtime);
        }
        self.leftovers = Leftovers::loaded(&mut self.booted.worker.js_runtime, &self.booted.bridge);
        let was_used = self.booted.loader.code_cache_was_used();
        self.host.send(&FromWorker::Loaded(Loaded {
            handler_kind,
            load_us: micros(begun.elapsed()),
            code_cache_used: was_used,
        }));
        self.code_cache = match (was_used, assignment.code_cache_is_early) {
            (false, _) => Schedule::loaded(),
            (true, true) => Schedule::loaded_early(),
            (true, false) => Schedule::never(),
        };
        Ok(())
    }

    /// Says that the process is jailed. Returns the listener of its network calls, if there is one.
    fn report_jail(&mut self, jail: &mut Entered) -> Option<OwnedFd> {
        let (listener, missing) = (jail.listener.take(), std::mem::take(&mut jail.missing));
        let number = listener.as_ref().map(AsRawFd::as_raw_fd);
        self.host.send(&FromWorker::Jailed(Jailed { listener: number, missing }));
        let host = self.host.clone();
        self.control.flush_blocking(&mut host.outgoing());
        listener
    }

    /// Waits until network calls are attended to. The listener is closed before user code could
    /// find it.
    async fn hand_over(&mut self, listener: Option<OwnedFd>) -> Result<(), Fault> {
        if listener.is_none() {
            return Ok(());
        }
        match poll_fn(|cx| self.control.poll_frame(cx)).await {
            Ok(ToWorker::Watched) => Ok(()),
            _ => Err(Fault::new(FaultClass::SandboxUnavailable, "the network is not attended to")),
        }
    }

    async fn evaluate(&mut self) -> Result<v8::Global<v8::Object>, CoreError> {
        let url = self.booted.loader.bundle_url();
        let module = self.booted.worker.preload_main_module(&url).await?;
        if self.booted.loader.needs().web_socket_pair {
            self.booted.bridge.use_web_socket_pair(&mut self.booted.worker.js_runtime);
        }
        let mut evaluated = pin!(self.booted.worker.js_runtime.mod_evaluate(module));
        let mut is_evaluated = false;
        let mut serves = None;
        poll_fn(|cx| {
            loop {
                // Rejections that nobody handled surface in the event loop, also after the module
                // has come to its end.
                let polled = self.booted.poll(cx);
                let Booted { worker, bridge, .. } = &mut self.booted;
                let runtime = &mut worker.js_runtime;
                if let Poll::Ready(Err(error)) = polled {
                    if is_stalled(&error) && bridge.serves(runtime) {
                        bridge.hold(runtime);
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Ready(Err(error));
                }
                if is_evaluated {
                    return Poll::Ready(Ok(()));
                }
                match evaluated.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => is_evaluated = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if serves.is_none() && bridge.serves(runtime) {
                            serves = Some(Box::pin(tokio::time::sleep(SERVES_AFTER)));
                        }
                        // Without a server it is the budget of the load that ends the wait.
                        let Some(serves) = &mut serves else { return Poll::Pending };
                        return serves.as_mut().poll(cx).map(|()| {
                            bridge.hold(runtime);
                            Ok(())
                        });
                    }
                }
            }
        })
        .await?;
        self.booted.worker.js_runtime.get_module_namespace(module)
    }

    /// The handler of the evaluated module. One that is to listen later is waited for until the
    /// module has nothing left to do.
    async fn handler_of(
        &mut self,
        namespace: &v8::Global<v8::Object>,
    ) -> Result<Option<HandlerKind>, CoreError> {
        let mut found = self.booted.loaded(namespace);
        poll_fn(|cx| {
            if found.is_some() {
                return Poll::Ready(Ok(found));
            }
            let polled = self.booted.poll(cx);
            found = self.booted.loaded(namespace);
            match polled {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending if found.is_none() => Poll::Pending,
                _ => Poll::Ready(Ok(found)),
            }
        })
        .await
    }

    fn startup_fault(&mut self, error: &CoreError, load_budget_ms: u32) -> Fault {
        if self.host.memory.exceeded() {
            return Fault::memory_limit(self.host.limits.get().memory_mb);
        }
        if self.watchdog.fired().is_some() {
            return slow_start(load_budget_ms);
        }
        if let Some(code) = self.exit_requested() {
            return Fault::new(
                FaultClass::StartupError,
                format!("the module ended its process with exit code {code} while it was loaded"),
            );
        }
        let (message, stack) = described(error);
        self.host.thrown(FaultClass::StartupError, message, &stack)
    }
}

fn slow_start(load_budget_ms: u32) -> Fault {
    Fault::new(
        FaultClass::StartupError,
        format!("the module did not finish loading within {load_budget_ms} ms"),
    )
}

/// Whether a module waits for what nothing is left to bring about. In V8's words.
fn is_stalled(error: &CoreError) -> bool {
    const STALLED: &str = "Top-level await promise never resolved";
    matches!(error.as_kind(), CoreErrorKind::Js(js) if js.exception_message == STALLED)
}
