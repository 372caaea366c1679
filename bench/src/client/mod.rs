//! One connection and what is done with it.

mod clock;
mod lane;
mod wire;

pub(crate) use clock::{Clock, RealClock, Sleeper};
pub(crate) use lane::{Lane, TcpLane};
pub(crate) use wire::Request;

/// An answer that came in whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What `x-cloudserve-cold` said.
    pub(crate) cold: Option<bool>,
    pub(crate) body_bytes: u64,
    /// From the request to the first byte of the answer.
    pub(crate) first_byte_ns: u64,
    /// `server-timing`, milliseconds by name, if it was asked for.
    pub(crate) timings: Vec<(String, f64)>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the connection was refused")]
    Connect,
    #[error("the connection broke")]
    Broken,
    #[error("the answer is not HTTP/1.1")]
    Malformed,
}

impl CallError {
    /// Under this name it is counted.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "connection_broken",
            Self::Malformed => "malformed_answer",
        }
    }
}
