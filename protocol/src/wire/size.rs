//! How large what is sent may be, and what the beginning of a frame says of that.

use super::{FromWorker, LENGTH_BYTES, kind};
use crate::limits::Limits;

/// Body bytes a sender may have under way before it has been granted more.
pub const INITIAL_CREDIT_BYTES: u32 = 256 * 1024;

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
    /// Whether it holds a code cache, which may be larger than an answer; unknown until the frame's
    /// kind is there.
    pub is_code_cache: Option<bool>,
}

impl FromWorker {
    /// What is known of the frame at the front of `buffer`, once its length is.
    #[must_use]
    pub fn announced(buffer: &[u8]) -> Option<Announced> {
        let (length, rest) = buffer.split_first_chunk::<LENGTH_BYTES>()?;
        Some(Announced {
            length: u32::from_le_bytes(*length) as usize,
            is_code_cache: rest.first().map(|first| *first == kind::CODE_CACHE),
        })
    }
}
