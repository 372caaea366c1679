//! Answers that are whole in memory while their callers read them.
//!
//! A worker is free for the next call as soon as it has answered, however slowly the answer is
//! read. Without a bound one function and callers that read next to nothing would fill the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// Smaller answers are not counted: there is one for each connection at most.
const COUNTED_BYTES: usize = 8 * 1024;

/// Bytes of answers in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<AtomicU64>);

impl Unread {
    /// How many there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// The same bytes, counted for as long as somebody has them.
    pub(crate) fn count(&self, answer: Bytes) -> Bytes {
        if answer.len() < COUNTED_BYTES {
            return answer;
        }
        self.0.fetch_add(answer.len() as u64, Relaxed);
        Bytes::from_owner(Counted { answer, unread: self.clone() })
    }
}

struct Counted {
    answer: Bytes,
    unread: Unread,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unread.0.fetch_sub(self.answer.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_nobody_has_it() {
        let unread = Unread::default();
        let small = unread.count(Bytes::from(vec![0; COUNTED_BYTES - 1]));
        assert_eq!((small.len(), unread.bytes()), (COUNTED_BYTES - 1, 0));
        let answer = unread.count(Bytes::from(vec![7; COUNTED_BYTES]));
        let rest = answer.slice(1..);
        drop(answer);
        assert_eq!((rest[0], unread.bytes()), (7, COUNTED_BYTES as u64));
        drop(rest);
        assert_eq!(unread.bytes(), 0);
    }
}
