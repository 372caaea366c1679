//! The credential that a connection has shown last, and whose it was.
//!
//! Nearly every connection shows the same one with each request. Its text is compared here, which takes
//! less than to hash it and to look it up among all that are known. Invariant: what is kept here counts
//! for no longer than what is in the cache.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::authenticator::Entry;

/// See the module. Of one connection.
#[derive(Default)]
pub struct ShownLast(Mutex<Option<Shown>>);

struct Shown {
    text: Zeroizing<String>,
    entry: Entry,
}

impl ShownLast {
    /// What `take` makes of whose this credential is, if it was shown last and what was known then
    /// still `holds`.
    pub(crate) fn recall<T>(
        &self,
        text: &str,
        holds: impl Fn(&Entry) -> bool,
        take: impl FnOnce(&Entry) -> T,
    ) -> Option<T> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.as_ref().filter(|shown| *shown.text == text && holds(&shown.entry))?;
        Some(take(&shown.entry))
    }

    /// This credential was shown.
    pub(crate) fn keep(&self, text: &str, entry: Entry) {
        let shown = Shown { text: Zeroizing::new(text.to_owned()), entry };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }
}
