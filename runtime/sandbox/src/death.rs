//! Why workers end, and what that means for the call that was in them.
//!
//! A worker has exactly one cause of death. Whoever ends it on purpose says why before the signal
//! is sent; a death nobody asked for is classified from the exit status and the last words on
//! standard error.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::limits::Limits;
use cloudserve_protocol::wire::{EXIT_CPU_LIMIT, EXIT_OUT_OF_MEMORY};
use nix::sys::signal::Signal;

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DeathCause {
    /// It had no call for too long, or made room for another function.
    Idle,
    /// It had served as many calls as it may.
    Recycled,
    /// A newer version of its function replaced it.
    Redeployed,
    /// A call in it passed its deadline.
    Timeout,
    /// A call in it used up its CPU time.
    CpuLimit,
    /// Its function outgrew its memory limit.
    MemoryLimit,
    /// Its process ran out of memory.
    Oom,
    /// A signal ended it.
    Crashed(i32),
    /// It exited with this code.
    Exit(i32),
    /// The sandbox shut down.
    Drained,
    /// It sent what it may not.
    ProtocolViolation,
    /// Its function could not be loaded.
    LoadFailed,
    /// The caller went away and it did not finish in time.
    Cancelled,
    /// It never became ready.
    StartFailed,
    /// It had answered, and there was no room for its answer until the deadline of the call.
    NoRoom,
}

/// One list of all causes.
macro_rules! labels {
    ($($cause:ident $(($any:tt))? => $label:literal,)*) => {
        /// Causes without what is known of them.
        enum Place { $($cause),* }

        impl DeathCause {
            /// Their names in metrics and logs.
            pub(crate) const LABELS: [&str; [$($label),*].len()] = [$($label),*];

            /// Its place among them.
            pub(crate) fn index(self) -> usize {
                match self { $(Self::$cause $(($any))? => Place::$cause as usize),* }
            }
        }
    };
}

labels! {
    Idle => "idle",
    Recycled => "recycled",
    Redeployed => "redeployed",
    Timeout => "timeout",
    MemoryLimit => "memory_limit",
    Oom => "oom",
    Crashed(_) => "crashed",
    Exit(_) => "exit",
    Drained => "drained",
    ProtocolViolation => "protocol_violation",
    LoadFailed => "load_failed",
    Cancelled => "cancelled",
    StartFailed => "start_failed",
    CpuLimit => "cpu_limit",
    NoRoom => "no_room",
}

impl DeathCause {
    /// Its name in metrics and logs.
    pub(crate) fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// Whether its function is to blame for it, in a call.
    pub(crate) fn is_by_itself(self) -> bool {
        !matches!(self, Self::Cancelled | Self::Drained | Self::NoRoom)
    }
}

/// Longest sentence for the caller that is taken from a worker.
const MESSAGE_BYTES: usize = 1024;

/// Longest stack that is taken from a worker.
const DETAIL_BYTES: usize = 16 * 1024;

/// How a process ended and what it said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExitReport {
    /// `None` when the process could not be waited for.
    pub(crate) status: Option<ExitStatus>,
    /// The end of its standard error.
    pub(crate) last_words: String,
    /// The cause it was ended for, else what the status says.
    pub(crate) cause: DeathCause,
}

/// What V8 and the Rust runtime print when memory ran out.
const OUT_OF_MEMORY: [&str; 5] = [
    "Fatal process out of memory",
    "Fatal JavaScript out of memory",
    "Fatal JavaScript invalid size error",
    "CALL_AND_RETRY_LAST",
    "memory allocation of ",
];

impl ExitReport {
    pub(crate) fn new(
        status: Option<ExitStatus>,
        last_words: String,
        said: Option<DeathCause>,
    ) -> Self {
        let cause = said.unwrap_or_else(|| classify(status, &last_words));
        Self { status, last_words, cause }
    }

    /// The fault of a call that was in the worker when it died.
    pub(crate) fn fault(&self, limits: &Limits) -> Fault {
        let fault = match self.cause {
            DeathCause::Timeout => Fault::timeout(limits.timeout_ms),
            DeathCause::CpuLimit => Fault::cpu_limit(limits.cpu_ms),
            DeathCause::MemoryLimit | DeathCause::Oom => Fault::memory_limit(limits.memory_mb),
            DeathCause::Exit(code) => {
                crashed(format!("the function ended its process with exit code {code}"))
            }
            DeathCause::Crashed(signal) => crashed(format!(
                "the function's process was ended by signal {signal} ({})",
                signal_name(signal)
            )),
            DeathCause::Drained => Fault::shutting_down(),
            DeathCause::ProtocolViolation => {
                crashed("the function's process misbehaved and was ended".to_owned())
            }
            DeathCause::Cancelled => Fault::cancelled(),
            DeathCause::NoRoom => Fault::new(
                FaultClass::ConcurrencyLimit,
                "the function has answered, but callers are still to read what functions of this account \
                 answered before: there was no room for the answer within the call's timeout",
            ),
            DeathCause::Idle
            | DeathCause::Recycled
            | DeathCause::Redeployed
            | DeathCause::LoadFailed
            | DeathCause::StartFailed => crashed("the function's process was ended".to_owned()),
        };
        if self.last_words.is_empty() { fault } else { fault.with_detail(self.last_words.clone()) }
    }

    /// The status in words, for the operator.
    pub(crate) fn status_text(&self) -> String {
        self.status.map_or_else(|| "exit status unknown".to_owned(), |status| status.to_string())
    }
}

/// A fault as the worker tells it: only classes that are its to tell, and texts of bounded length.
pub(crate) fn as_claimed(mut fault: Fault) -> Fault {
    match fault.class {
        FaultClass::HandlerError
        | FaultClass::StartupError
        | FaultClass::Timeout
        | FaultClass::CpuLimit
        | FaultClass::MemoryLimit
        | FaultClass::Crashed
        | FaultClass::ResponseTooLarge => {}
        // These say that the function is not to blame, or that the call may be tried elsewhere.
        FaultClass::ConcurrencyLimit
        | FaultClass::RateLimit
        | FaultClass::QuotaExceeded
        | FaultClass::PayloadTooLarge
        | FaultClass::SandboxUnavailable
        | FaultClass::Cancelled => fault.class = FaultClass::HandlerError,
    }
    fault.message.truncate(fault.message.floor_char_boundary(MESSAGE_BYTES));
    if let Some(detail) = &mut fault.detail {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
    }
    fault
}

fn crashed(message: String) -> Fault {
    Fault::new(FaultClass::Crashed, message)
}

pub(crate) fn signal_name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("unknown", Signal::as_str)
}

fn classify(status: Option<ExitStatus>, last_words: &str) -> DeathCause {
    let Some(status) = status else { return DeathCause::Exit(-1) };
    match status.code() {
        Some(EXIT_OUT_OF_MEMORY) => return DeathCause::Oom,
        Some(EXIT_CPU_LIMIT) => return DeathCause::CpuLimit,
        _ => {}
    }
    match (status.signal(), status.code()) {
        // V8 aborts, traps or exits with an odd code when it cannot allocate; what it printed
        // before is what tells.
        (Some(_), _) | (_, Some(1..)) if OUT_OF_MEMORY.iter().any(|m| last_words.contains(m)) => {
            DeathCause::Oom
        }
        (Some(signal), _) => DeathCause::Crashed(signal),
        (None, code) => DeathCause::Exit(code.unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(raw_status: i32, last_words: &str) -> ExitReport {
        ExitReport::new(Some(ExitStatus::from_raw(raw_status)), last_words.to_owned(), None)
    }

    #[test]
    fn deaths_nobody_asked_for_are_classified() {
        for (raw_status, last_words, cause, code) in [
            (libc::SIGKILL, "", DeathCause::Crashed(9), "crashed"),
            (libc::SIGABRT, "", DeathCause::Crashed(6), "crashed"),
            (3 << 8, "", DeathCause::Exit(3), "crashed"),
            (0, "", DeathCause::Exit(0), "crashed"),
            (EXIT_OUT_OF_MEMORY << 8, "", DeathCause::Oom, "memory_limit"),
            (EXIT_CPU_LIMIT << 8, "", DeathCause::CpuLimit, "cpu_limit"),
            (
                libc::SIGTRAP,
                "# Fatal JavaScript out of memory: Reached heap limit",
                DeathCause::Oom,
                "memory_limit",
            ),
        ] {
            let report = report(raw_status, last_words);
            assert_eq!(report.cause, cause, "{raw_status} {last_words}");
            assert_eq!(report.fault(&Limits::default()).class.code(), code);
        }
        assert!(report(6, "").fault(&Limits::default()).message.contains("SIGABRT"));
    }

    #[test]
    fn a_stated_cause_wins() {
        let status = Some(ExitStatus::from_raw(libc::SIGKILL));
        let report = ExitReport::new(status, String::new(), Some(DeathCause::Timeout));
        assert_eq!(report.cause, DeathCause::Timeout);
        assert_eq!(report.fault(&Limits::default()), Fault::timeout(5_000));
    }

    #[test]
    fn a_worker_cannot_claim_that_it_was_never_reached() {
        let claimed = as_claimed(Fault::new(FaultClass::SandboxUnavailable, "é".repeat(2_000)));
        assert_eq!(claimed.class, FaultClass::HandlerError);
        assert_eq!(claimed.message.len(), MESSAGE_BYTES);
    }

    #[test]
    fn every_cause_has_its_own_label() {
        assert_eq!(DeathCause::Idle.label(), "idle");
        assert_eq!(DeathCause::Crashed(9).label(), "crashed");
        assert_eq!(DeathCause::StartFailed.label(), "start_failed");
        assert_eq!(DeathCause::CpuLimit.label(), "cpu_limit");
        assert_eq!(DeathCause::NoRoom.label(), "no_room");
    }

    #[test]
    fn a_function_is_not_to_blame_for_an_answer_that_finds_no_room() {
        let status = Some(ExitStatus::from_raw(libc::SIGKILL));
        let report = ExitReport::new(status, String::new(), Some(DeathCause::NoRoom));
        assert_eq!(report.fault(&Limits::default()).class, FaultClass::ConcurrencyLimit);
        assert!(!DeathCause::NoRoom.is_by_itself() && DeathCause::Timeout.is_by_itself());
    }
}
