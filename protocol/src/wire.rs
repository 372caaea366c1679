//! Frames on the Unix stream between supervisor and worker.
//!
//! A frame is `length: u32 LE` (of what follows), `kind: u8`, payload. Numbers are little-endian.
//! Frames that occur in every call are binary and carry bodies as they are; frames that occur
//! once in a worker's life are JSON.
//!
//! Several calls may be in one worker: `call` tells them apart and is chosen by the supervisor.
//! Bodies flow under credit: each side may send so much of a body at first
//! ([`INITIAL_UPLOAD_CREDIT_BYTES`] of a request's, [`INITIAL_CREDIT_BYTES`] of an answer's) and
//! then as much as the other side has granted with `Credit`. A worker is not trusted: the
//! supervisor kills one that sends what it may not.

mod fields;
mod size;

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use self::fields::{
    frame, frame_before, get_array, get_block, get_text, get_u8, get_u16, get_u32, get_u64,
    put_block, put_json, take_frame,
};
pub use self::size::{
    Announced, Holds, INITIAL_CREDIT_BYTES, INITIAL_UPLOAD_CREDIT_BYTES, MAX_CHUNK_BYTES,
    MAX_CODE_CACHE_BYTES, MAX_FRAME_BYTES, MAX_HEAD_BYTES,
};
pub use crate::assignment::{Assignment, JailTerms, Jailed};
use crate::call::{HandlerKind, LogLevel};
use crate::fault::Fault;
use crate::headers::HeaderBlock;
use crate::ids::ExecutionId;

/// The one status below 200 that ends a request: the connection belongs to the function.
pub const SWITCHING_PROTOCOLS: u16 = 101;

/// Exit code of a worker that V8 could not give memory to.
pub const EXIT_OUT_OF_MEMORY: i32 = 70;

/// Exit code of a worker whose function left an error nobody caught, after its answer or between
/// calls.
pub const EXIT_UNCAUGHT: i32 = 71;

/// Exit code of a worker whose code could not be stopped when its CPU time was used up.
pub const EXIT_CPU_LIMIT: i32 = 72;

/// A line of a log counts at least so many bytes of `limits.logBytes`: the number of lines is bounded
/// as well.
pub const MIN_LOG_LINE_BYTES: usize = 16;

/// The last line of a log that was cut. A worker that keeps to `limits.logBytes` itself ends the
/// log with it; the supervisor recognises it.
#[must_use]
pub fn log_cut_marker(limit_bytes: u32) -> String {
    format!("[log truncated at {limit_bytes} bytes; limits.logBytes raises it]")
}

/// A byte sequence is not a valid frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The length field exceeds [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
    /// An unknown kind, or a payload that does not fit its kind.
    #[error("malformed frame of kind {0}")]
    Malformed(u8),
    /// A JSON payload that does not parse.
    #[error("malformed control frame")]
    Json(#[from] serde_json::Error),
}

/// A worker has booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Time from process start to this frame.
    pub boot_us: u64,
    /// Code caches are valid only between workers that say the same here: V8 version and flags.
    pub code_cache_tag: String,
    /// The descriptor, in the worker, of a memory file with [`ClaimSlots`](crate::claims) of
    /// calls that may wait in it. It stays open until the assignment.
    #[serde(default)]
    pub claims: Option<i32>,
}

/// A worker has loaded its function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// How the handler is called.
    pub handler_kind: HandlerKind,
    /// Time from the assignment to this frame.
    pub load_us: u64,
    /// Whether a code cache was given and V8 took it.
    pub code_cache_used: bool,
}

/// How a call in a worker ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Why it failed, if it did.
    pub fault: Option<Fault>,
    /// Whether the worker must not be used again (a limit was hit, state is unknown).
    pub discard: bool,
    /// CPU time of the process during the call.
    pub cpu_us: u64,
    /// Time from the beginning of the call to its end.
    #[serde(default)]
    pub busy_us: u32,
    /// The most memory the call had in use.
    pub memory_bytes: u64,
}

/// From supervisor to worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// First frame a worker gets. Once.
    Assign(Box<Assignment>),
    /// The listener of [`FromWorker::Jailed`] is attended to; user code may run. At most once.
    Watched,
    /// A call.
    Request {
        /// Tells calls apart.
        call: u32,
        /// Names the call to the function.
        execution_id: ExecutionId,
        /// Time that is left, from the arrival of this frame.
        budget_ms: u32,
        /// Upper-case method.
        method: Cow<'static, str>,
        /// Path and query.
        target: Cow<'static, str>,
        /// Headers.
        headers: HeaderBlock,
        /// The body, or its beginning.
        body: Bytes,
        /// Whether `body` is all of it.
        end: bool,
        /// Whether the supervisor may take the call back until the worker has claimed it.
        revocable: bool,
        /// Whether calls come one at a time everywhere: the next one may be looked for instead of
        /// slept for.
        is_lone: bool,
    },
    /// More of the request's body.
    Body {
        /// Which call.
        call: u32,
        /// The piece.
        bytes: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// The request's body ends, with what was only known at its end.
    Trailers {
        /// Which call.
        call: u32,
        /// The trailers.
        trailers: HeaderBlock,
    },
    /// The rest of the request's body will not come.
    BodyAborted {
        /// Which call.
        call: u32,
    },
    /// Nobody waits for the answer any more.
    Cancel {
        /// Which call.
        call: u32,
    },
    /// The worker may send this much more of the answer's body.
    Credit {
        /// Which call.
        call: u32,
        /// How much more.
        bytes: u32,
    },
    /// Finish what is under way and exit.
    Drain,
}

/// From worker to supervisor.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// First frame a worker sends. Once.
    Ready(Ready),
    /// It has jailed itself, after the assignment. At most once, before `Loaded`.
    Jailed(Jailed),
    /// The function is loaded; calls may be sent.
    Loaded(Loaded),
    /// The function could not be loaded. The worker exits.
    LoadFailed(Fault),
    /// V8's code cache for the bundle.
    CodeCache(Bytes),
    /// The answer begins.
    Head {
        /// Which call.
        call: u32,
        /// HTTP status.
        status: u16,
        /// Headers.
        headers: HeaderBlock,
        /// The body, or its beginning.
        body: Bytes,
        /// Whether `body` is all of it.
        end: bool,
    },
    /// More of the answer's body.
    Chunk {
        /// Which call.
        call: u32,
        /// The piece.
        bytes: Bytes,
        /// Whether it is the last.
        end: bool,
    },
    /// The answer's body ends, with what was only known at its end.
    Trailers {
        /// Which call.
        call: u32,
        /// The trailers.
        trailers: HeaderBlock,
    },
    /// The supervisor may send this much more of the request's body.
    Credit {
        /// Which call.
        call: u32,
        /// How much more.
        bytes: u32,
    },
    /// A line the function wrote. `call` is 0 while the module is loaded and between calls.
    Log {
        /// Which call.
        call: u32,
        /// Severity.
        level: LogLevel,
        /// Milliseconds since the epoch.
        timestamp_ms: u64,
        /// Text.
        message: String,
    },
    /// The call is over: the answer is complete or will never be.
    Done {
        /// Which call.
        call: u32,
        /// How it ended.
        done: Done,
    },
}

mod kind {
    pub(super) const ASSIGN: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const BODY: u8 = 3;
    pub(super) const BODY_ABORTED: u8 = 4;
    pub(super) const CANCEL: u8 = 5;
    pub(super) const CREDIT: u8 = 6;
    pub(super) const DRAIN: u8 = 7;
    pub(super) const WATCHED: u8 = 8;
    pub(super) const TRAILERS: u8 = 9;

    pub(super) const READY: u8 = 65;
    pub(super) const LOADED: u8 = 66;
    pub(super) const LOAD_FAILED: u8 = 67;
    pub(super) const CODE_CACHE: u8 = 68;
    pub(super) const HEAD: u8 = 69;
    pub(super) const CHUNK: u8 = 70;
    pub(super) const WORKER_CREDIT: u8 = 71;
    pub(super) const LOG: u8 = 72;
    pub(super) const DONE: u8 = 73;
    /// [`super::Done`] of a call that succeeded: the warm path, without JSON.
    pub(super) const DONE_OK: u8 = 74;
    pub(super) const JAILED: u8 = 75;
    pub(super) const WORKER_TRAILERS: u8 = 76;
}

const LENGTH_BYTES: usize = 4;

impl ToWorker {
    /// Appends this frame.
    pub fn encode(&self, out: &mut BytesMut) {
        if let Some(body) = self.encode_before_body(out) {
            out.put_slice(&body);
        }
    }

    /// Appends this frame but for the body at its end, which must be sent next. Nothing comes back
    /// if there is none.
    #[must_use]
    pub fn encode_before_body(&self, out: &mut BytesMut) -> Option<Bytes> {
        let body = match self {
            Self::Request { body, .. } => body,
            Self::Body { bytes, .. } => bytes,
            _ => &Bytes::new(),
        };
        match self {
            Self::Assign(assignment) => frame(out, kind::ASSIGN, |o| put_json(o, assignment)),
            Self::Request {
                call,
                execution_id,
                budget_ms,
                method,
                target,
                headers,
                end,
                revocable,
                is_lone,
                ..
            } => frame_before(out, kind::REQUEST, body.len(), |o| {
                o.put_u32_le(*call);
                o.put_slice(execution_id.as_bytes());
                o.put_u32_le(*budget_ms);
                o.put_u8(u8::from(*end));
                o.put_u8(u8::from(*revocable));
                o.put_u8(u8::from(*is_lone));
                put_block(o, method.as_bytes());
                put_block(o, target.as_bytes());
                put_block(o, headers.as_bytes());
            }),
            Self::Body { call, end, .. } => frame_before(out, kind::BODY, body.len(), |o| {
                o.put_u32_le(*call);
                o.put_u8(u8::from(*end));
            }),
            Self::Trailers { call, trailers } => put_trailers(out, kind::TRAILERS, *call, trailers),
            Self::BodyAborted { call } => frame(out, kind::BODY_ABORTED, |o| o.put_u32_le(*call)),
            Self::Cancel { call } => frame(out, kind::CANCEL, |o| o.put_u32_le(*call)),
            Self::Credit { call, bytes } => put_credit(out, kind::CREDIT, *call, *bytes),
            Self::Drain => frame(out, kind::DRAIN, |_| {}),
            Self::Watched => frame(out, kind::WATCHED, |_| {}),
        }
        (!body.is_empty()).then(|| body.clone())
    }

    /// Takes one whole frame off the front of `buffer`, if it holds one.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some((kind, mut payload)) = take_frame(buffer)? else { return Ok(None) };
        let p = &mut payload;
        let parsed = match kind {
            kind::ASSIGN => Some(Self::Assign(serde_json::from_slice(p)?)),
            kind::REQUEST => parse_request(p),
            kind::BODY => parse_piece(p).map(|(call, bytes, end)| Self::Body { call, bytes, end }),
            kind::TRAILERS => {
                parse_trailers(p).map(|(call, trailers)| Self::Trailers { call, trailers })
            }
            kind::BODY_ABORTED => get_u32(p).map(|call| Self::BodyAborted { call }),
            kind::CANCEL => get_u32(p).map(|call| Self::Cancel { call }),
            kind::CREDIT => parse_credit(p).map(|(call, bytes)| Self::Credit { call, bytes }),
            kind::DRAIN => Some(Self::Drain),
            kind::WATCHED => Some(Self::Watched),
            _ => None,
        };
        parsed.map(Some).ok_or(WireError::Malformed(kind))
    }
}

fn parse_request(p: &mut Bytes) -> Option<ToWorker> {
    let call = get_u32(p)?;
    let execution_id = ExecutionId::from_bytes(get_array(p)?);
    let budget_ms = get_u32(p)?;
    let end = get_u8(p)? != 0;
    let revocable = get_u8(p)? != 0;
    let is_lone = get_u8(p)? != 0;
    let method = get_text(p)?.into();
    let target = get_text(p)?.into();
    let headers = HeaderBlock::parse(get_block(p)?).ok()?;
    Some(ToWorker::Request {
        call,
        execution_id,
        budget_ms,
        method,
        target,
        headers,
        body: std::mem::take(p),
        end,
        revocable,
        is_lone,
    })
}

impl FromWorker {
    /// Appends a `Head` but for its body, of which exactly so many bytes must follow.
    pub fn begin_head(
        out: &mut BytesMut,
        call: u32,
        status: u16,
        headers: &HeaderBlock,
        end: bool,
        body_bytes: usize,
    ) {
        frame_before(out, kind::HEAD, body_bytes, |o| {
            o.put_u32_le(call);
            o.put_u16_le(status);
            o.put_u8(u8::from(end));
            put_block(o, headers.as_bytes());
        });
    }

    /// Appends a `Chunk` but for its bytes, of which exactly so many must follow.
    pub fn begin_chunk(out: &mut BytesMut, call: u32, end: bool, bytes: usize) {
        frame_before(out, kind::CHUNK, bytes, |o| {
            o.put_u32_le(call);
            o.put_u8(u8::from(end));
        });
    }

    /// Appends this frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Ready(ready) => frame(out, kind::READY, |o| put_json(o, ready)),
            Self::Jailed(jailed) => frame(out, kind::JAILED, |o| put_json(o, jailed)),
            Self::Loaded(loaded) => frame(out, kind::LOADED, |o| put_json(o, loaded)),
            Self::LoadFailed(fault) => frame(out, kind::LOAD_FAILED, |o| put_json(o, fault)),
            Self::CodeCache(bytes) => frame(out, kind::CODE_CACHE, |o| o.put_slice(bytes)),
            Self::Head { call, status, headers, body, end } => {
                Self::begin_head(out, *call, *status, headers, *end, body.len());
                out.put_slice(body);
            }
            Self::Chunk { call, bytes, end } => {
                Self::begin_chunk(out, *call, *end, bytes.len());
                out.put_slice(bytes);
            }
            Self::Trailers { call, trailers } => {
                put_trailers(out, kind::WORKER_TRAILERS, *call, trailers);
            }
            Self::Credit { call, bytes } => put_credit(out, kind::WORKER_CREDIT, *call, *bytes),
            Self::Log { call, level, timestamp_ms, message } => frame(out, kind::LOG, |o| {
                o.put_u32_le(*call);
                o.put_u8(*level as u8);
                o.put_u64_le(*timestamp_ms);
                o.put_slice(message.as_bytes());
            }),
            Self::Done { call, done } if done.fault.is_none() && !done.discard => {
                frame(out, kind::DONE_OK, |o| {
                    o.put_u32_le(*call);
                    o.put_u64_le(done.cpu_us);
                    o.put_u32_le(done.busy_us);
                    o.put_u64_le(done.memory_bytes);
                });
            }
            Self::Done { call, done } => frame(out, kind::DONE, |o| {
                o.put_u32_le(*call);
                put_json(o, done);
            }),
        }
    }

    /// Takes one whole frame off the front of `buffer`, if it holds one.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some((kind, mut payload)) = take_frame(buffer)? else { return Ok(None) };
        let p = &mut payload;
        let parsed = match kind {
            kind::READY => Some(Self::Ready(serde_json::from_slice(p)?)),
            kind::JAILED => Some(Self::Jailed(serde_json::from_slice(p)?)),
            kind::LOADED => Some(Self::Loaded(serde_json::from_slice(p)?)),
            kind::LOAD_FAILED => Some(Self::LoadFailed(serde_json::from_slice(p)?)),
            kind::CODE_CACHE => Some(Self::CodeCache(std::mem::take(p))),
            kind::HEAD => parse_head(p),
            kind::CHUNK => {
                parse_piece(p).map(|(call, bytes, end)| Self::Chunk { call, bytes, end })
            }
            kind::WORKER_TRAILERS => {
                parse_trailers(p).map(|(call, trailers)| Self::Trailers { call, trailers })
            }
            kind::WORKER_CREDIT => {
                parse_credit(p).map(|(call, bytes)| Self::Credit { call, bytes })
            }
            kind::LOG => parse_log(p),
            kind::DONE => match get_u32(p) {
                Some(call) => Some(Self::Done { call, done: serde_json::from_slice(p)? }),
                None => None,
            },
            kind::DONE_OK => parse_done_ok(p),
            _ => None,
        };
        parsed.map(Some).ok_or(WireError::Malformed(kind))
    }
}

fn parse_head(p: &mut Bytes) -> Option<FromWorker> {
    let call = get_u32(p)?;
    let status = get_u16(p)?;
    let end = get_u8(p)? != 0;
    let headers = HeaderBlock::parse(get_block(p)?).ok()?;
    Some(FromWorker::Head { call, status, headers, body: std::mem::take(p), end })
}

fn parse_log(p: &mut Bytes) -> Option<FromWorker> {
    let call = get_u32(p)?;
    let level = match get_u8(p)? {
        0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        3 => LogLevel::Error,
        _ => return None,
    };
    let timestamp_ms = get_u64(p)?;
    let message = String::from_utf8_lossy(p).into_owned();
    Some(FromWorker::Log { call, level, timestamp_ms, message })
}

fn parse_done_ok(p: &mut Bytes) -> Option<FromWorker> {
    let call = get_u32(p)?;
    let cpu_us = get_u64(p)?;
    let busy_us = get_u32(p)?;
    let memory_bytes = get_u64(p)?;
    Some(FromWorker::Done {
        call,
        done: Done { fault: None, discard: false, cpu_us, busy_us, memory_bytes },
    })
}

fn parse_piece(p: &mut Bytes) -> Option<(u32, Bytes, bool)> {
    let call = get_u32(p)?;
    let end = get_u8(p)? != 0;
    Some((call, std::mem::take(p), end))
}

fn put_trailers(out: &mut BytesMut, kind: u8, call: u32, trailers: &HeaderBlock) {
    frame(out, kind, |o| {
        o.put_u32_le(call);
        o.put_slice(trailers.as_bytes());
    });
}

fn parse_trailers(p: &mut Bytes) -> Option<(u32, HeaderBlock)> {
    let call = get_u32(p)?;
    Some((call, HeaderBlock::parse(std::mem::take(p)).ok()?))
}

fn put_credit(out: &mut BytesMut, kind: u8, call: u32, bytes: u32) {
    frame(out, kind, |o| {
        o.put_u32_le(call);
        o.put_u32_le(bytes);
    });
}

fn parse_credit(p: &mut Bytes) -> Option<(u32, u32)> {
    Some((get_u32(p)?, get_u32(p)?))
}

#[cfg(test)]
mod tests;
