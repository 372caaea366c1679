//! The fault taxonomy. A fault has one class from the moment it is detected to the usage row, the
//! log, the metric and the HTTP answer.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong with an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// The handler threw or its promise was rejected.
    HandlerError,
    /// The module could not be loaded or exports no handler.
    StartupError,
    /// The wall-clock deadline passed.
    Timeout,
    /// The CPU budget was used up.
    CpuLimit,
    /// Heap and array buffers outgrew the memory limit.
    MemoryLimit,
    /// The function's process ended while the call was in it.
    Crashed,
    /// The answer is larger than allowed.
    ResponseTooLarge,
    /// Too many calls in flight, and the queue is full or the wait was too long.
    ConcurrencyLimit,
    /// Too many calls per second.
    RateLimit,
    /// The account's quota is used up.
    QuotaExceeded,
    /// The request body is larger than allowed.
    PayloadTooLarge,
    /// No sandbox could take the call.
    SandboxUnavailable,
    /// The caller went away before the answer was complete.
    Cancelled,
}

impl FaultClass {
    /// Each of them, at the place that its number is.
    pub const ALL: [Self; Self::Cancelled as usize + 1] = [
        Self::HandlerError,
        Self::StartupError,
        Self::Timeout,
        Self::CpuLimit,
        Self::MemoryLimit,
        Self::Crashed,
        Self::ResponseTooLarge,
        Self::ConcurrencyLimit,
        Self::RateLimit,
        Self::QuotaExceeded,
        Self::PayloadTooLarge,
        Self::SandboxUnavailable,
        Self::Cancelled,
    ];

    /// The stable code in answers, usage rows and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HandlerError => "handler_error",
            Self::StartupError => "startup_error",
            Self::Timeout => "timeout",
            Self::CpuLimit => "cpu_limit",
            Self::MemoryLimit => "memory_limit",
            Self::Crashed => "crashed",
            Self::ResponseTooLarge => "response_too_large",
            Self::ConcurrencyLimit => "concurrency_limit",
            Self::RateLimit => "rate_limit",
            Self::QuotaExceeded => "quota_exceeded",
            Self::PayloadTooLarge => "payload_too_large",
            Self::SandboxUnavailable => "sandbox_unavailable",
            Self::Cancelled => "cancelled",
        }
    }

    /// The HTTP status a caller sees.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::HandlerError
            | Self::StartupError
            | Self::MemoryLimit
            | Self::CpuLimit
            | Self::Crashed => 500,
            Self::ResponseTooLarge => 502,
            Self::Timeout => 504,
            Self::ConcurrencyLimit | Self::RateLimit | Self::QuotaExceeded => 429,
            Self::PayloadTooLarge => 413,
            Self::SandboxUnavailable => 503,
            Self::Cancelled => 499,
        }
    }
}

/// A fault: its class, one sentence for the caller and, for the owner's log only, the detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind.
    pub class: FaultClass,
    /// One sentence: which limit or input was wrong and what to do. Nothing internal.
    pub message: String,
    /// A stack trace or the like: for the owner's log, never for the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many calls there may be at the same time, where there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl Fault {
    /// A fault without detail.
    pub fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), detail: None, limit: None }
    }

    /// The same fault with a detail for the owner's log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same fault with the bound that was met.
    #[must_use]
    pub fn with_limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The wall-clock deadline passed.
    #[must_use]
    pub fn timeout(timeout_ms: u32) -> Self {
        Self::new(
            FaultClass::Timeout,
            format!(
                "the function did not finish within its timeout of {timeout_ms} ms \
                 (limits.timeoutMs raises it)"
            ),
        )
    }

    /// The CPU time was used up.
    #[must_use]
    pub fn cpu_limit(cpu_ms: u32) -> Self {
        Self::new(
            FaultClass::CpuLimit,
            format!(
                "the function used more than its {cpu_ms} ms of CPU time \
                 (limits.cpuMs raises it)"
            ),
        )
    }

    /// Heap or array buffers outgrew the limit.
    #[must_use]
    pub fn memory_limit(memory_mb: u32) -> Self {
        Self::new(
            FaultClass::MemoryLimit,
            format!(
                "the function used more than its {memory_mb} MB of memory \
                 (limits.memoryMb raises it)"
            ),
        )
    }

    /// The request body is larger than the function takes.
    #[must_use]
    pub fn payload_too_large(max_bytes: u64) -> Self {
        Self::new(
            FaultClass::PayloadTooLarge,
            format!(
                "the request body is larger than {max_bytes} bytes \
                 (limits.requestBodyBytes raises it)"
            ),
        )
    }

    /// The caller went away before all of its request was there.
    #[must_use]
    pub fn request_cut_off() -> Self {
        Self::new(FaultClass::Cancelled, "the caller went away before the request was complete")
    }

    /// The caller went away before it had all of its answer.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(FaultClass::Cancelled, "the caller went away before the answer was complete")
    }

    /// No call is taken any more.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(FaultClass::SandboxUnavailable, "the server is shutting down; try again")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.code(), self.message)
    }
}

impl Error for Fault {}

/// An error with its causes, on one line.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_at_its_place() {
        let places = FaultClass::ALL.map(|class| class as usize);
        assert!(places.into_iter().eq(0..FaultClass::ALL.len()), "{places:?}");
    }
}
