//! How large what is sent may be, and what the beginning of a frame says of that.

use super::{FromWorker, LENGTH_BYTES, kind};
use crate::limits::Limits;

/// Bytes of an answer's body that a worker may have under way before it has been granted more. The
/// supervisor holds them for a caller that reads slowly.
pub const INITIAL_CREDIT_BYTES: u32 = 256 * 1024;

/// The same of a request's body, which the worker holds, in its function's memory: more, so that
/// most large bodies wait for nothing on their way.
pub const INITIAL_UPLOAD_CREDIT_BYTES: u32 = 1024 * 1024;

/// Largest piece of a body in one frame.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Largest head of an answer that a worker sends, and largest trailers. What the supervisor takes is
/// less.
pub const MAX_HEAD_BYTES: usize = 1024 * 1024;

/// Largest frame with a code cache. Bundles are far smaller.
pub const MAX_CODE_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Largest frame: an answer that is sent whole, with its head.
pub const MAX_FRAME_BYTES: usize = 102 * 1024 * 1024;

const _: () = assert!(
    (MAX_FRAME_BYTES - 2 * MAX_HEAD_BYTES) as u64 >= Limits::MAX.response_body_bytes,
    "an answer as large as a function may make it has to fit into a frame",
);

/// What the beginning of a frame from a worker says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// How many bytes come after the length.
    pub length: usize,
    /// What it holds; unknown until the frame's kind is there.
    pub holds: Option<Holds>,
}

/// What a frame from a worker holds, as far as that says how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A code cache, which may be larger than an answer.
    CodeCache,
    /// An answer, or its beginning.
    Answer,
    /// A line of a log, a piece of an answer, or something small: none is as large as an answer may be.
    Other,
}

impl FromWorker {
    /// What is known of the frame at the front of `buffer`, once its length is.
    #[must_use]
    pub fn announced(buffer: &[u8]) -> Option<Announced> {
        let (length, rest) = buffer.split_first_chunk::<LENGTH_BYTES>()?;
        Some(Announced {
            length: u32::from_le_bytes(*length) as usize,
            holds: rest.first().map(|first| match *first {
                kind::CODE_CACHE => Holds::CodeCache,
                kind::HEAD => Holds::Answer,
                _ => Holds::Other,
            }),
        })
    }
}
