//! Answers that are whole in memory while their callers read them.
//!
//! A worker is free for the next call as soon as it has answered, however slowly the answer is
//! read. Without a bound one function and callers that read next to nothing would fill the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// Smaller answers are not counted: there is one for each connection at most.
const COUNTED_BYTES: usize = 8 * 1024;

/// What all accounts together may have, as a multiple of what one may.
const ACCOUNTS: u64 = 4;

/// Beyond that an account may have this part of its own: few can have most of it, and the others are
/// served as before.
const PART: u64 = 8;

/// Bytes of answers in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread {
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl Unread {
    /// Of one more account.
    pub(crate) fn beside(others: &Self) -> Self {
        Self { own: Arc::default(), all: others.all.clone() }
    }

    /// Whether there are so many that the account's calls have to wait until some are read.
    pub(crate) fn is_beyond(&self, limit_bytes: u64) -> bool {
        let own = self.own.load(Relaxed);
        own > limit_bytes
            || (own > limit_bytes / PART
                && self.all.load(Relaxed) > limit_bytes.saturating_mul(ACCOUNTS))
    }

    /// The same bytes, counted for as long as somebody has them.
    pub(crate) fn count(&self, answer: Bytes) -> Bytes {
        if answer.len() < COUNTED_BYTES {
            return answer;
        }
        for count in [&self.own, &self.all] {
            count.fetch_add(answer.len() as u64, Relaxed);
        }
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
        for count in [&self.unread.own, &self.unread.all] {
            count.fetch_sub(self.answer.len() as u64, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_nobody_has_it() {
        let unread = Unread::default();
        let small = unread.count(Bytes::from(vec![0; COUNTED_BYTES - 1]));
        assert!(small.len() == COUNTED_BYTES - 1 && !unread.is_beyond(0));
        let answer = unread.count(Bytes::from(vec![7; COUNTED_BYTES]));
        let rest = answer.slice(1..);
        drop(answer);
        let held = COUNTED_BYTES as u64;
        assert!(rest[0] == 7 && unread.is_beyond(held - 1) && !unread.is_beyond(held));
        drop(rest);
        assert!(!unread.is_beyond(0));
    }

    #[test]
    fn where_all_have_too_much_those_wait_who_have_most_of_it() {
        let all = Unread::default();
        let limit_bytes = (PART + 1) * COUNTED_BYTES as u64;
        let [idle, small, last, others @ ..] = [(); 7].map(|()| Unread::beside(&all));
        let answers = |unread: &Unread, n| unread.count(Bytes::from(vec![0; n * COUNTED_BYTES]));
        let mut held: Vec<_> = others.iter().map(|of| answers(of, 9)).collect();
        held.extend([answers(&small, 1)]);
        assert!(others.iter().all(|of| of.is_beyond(limit_bytes)));
        held.truncate(3);
        held.extend([answers(&last, 2), answers(&small, 1)]);
        assert!(!last.is_beyond(limit_bytes));
        held.push(answers(&others[3], 7));
        assert!(last.is_beyond(limit_bytes) && others.iter().all(|of| of.is_beyond(limit_bytes)));
        assert!(!small.is_beyond(limit_bytes) && !idle.is_beyond(limit_bytes));
        held.clear();
        assert!(!last.is_beyond(0));
    }
}
