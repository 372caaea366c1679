//! What changed when: what was looked up before a change of its subject counts for nothing after it.
//!
//! Time is counted in changes. Invariant: an answer belongs to the epoch in which its lookup began, so
//! one that is still looked up while its subject changes does not hold either.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use cloudserve_store::Change;

use crate::authenticator::{Principal, Via};

/// Keys and accounts share these places, by their ids. Who shares one is looked up once more than
/// would be needed, and never less.
const PLACES: usize = 16_384;

/// The changes there were.
pub(crate) struct Epochs {
    now: AtomicU64,
    /// When a key or an account of each place last changed.
    subjects: Box<[AtomicU64]>,
    /// When a session last ended. Which one, a change does not say.
    sessions: AtomicU64,
    /// When changes were last missed.
    all: AtomicU64,
}

impl Epochs {
    pub(crate) fn new() -> Self {
        Self {
            now: AtomicU64::new(0),
            subjects: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            sessions: AtomicU64::new(0),
            all: AtomicU64::new(0),
        }
    }

    /// To be asked for before a lookup begins.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Acquire)
    }

    /// Something changed.
    pub(crate) fn change(&self, change: Change) {
        match change {
            Change::ApiKey(id) => self.begin(self.place(id.as_bytes())),
            Change::User(id) => self.begin(self.place(id.as_bytes())),
            Change::Token => self.begin(&self.sessions),
            Change::Function(_) | Change::DeploymentQueued => {}
        }
    }

    /// Anything may have changed.
    pub(crate) fn change_all(&self) {
        self.begin(&self.all);
    }

    /// Whether what a lookup that began in this epoch has found may be taken now.
    pub(crate) fn holds(&self, epoch: u64, found: &Principal) -> bool {
        if epoch == self.now() {
            return true;
        }
        let credential = match &found.via {
            Via::Session { .. } => &self.sessions,
            Via::ApiKey { id, .. } => self.place(id.as_bytes()),
        };
        let places = [&self.all, credential, self.place(found.user_id.as_bytes())];
        places.iter().all(|changed| changed.load(Acquire) <= epoch)
    }

    fn begin(&self, changed: &AtomicU64) {
        let epoch = self.now.fetch_add(1, Release) + 1;
        // Another change of this place may have been faster.
        changed.fetch_max(epoch, Release);
    }

    /// The last bytes of an id are random.
    fn place(&self, id: &[u8; 16]) -> &AtomicU64 {
        &self.subjects[usize::from(u16::from_be_bytes([id[14], id[15]])) % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use cloudserve_protocol::ids::{ApiKeyId, FunctionId, UserId};
    use cloudserve_store::Timestamp;

    use super::*;

    /// An account or key whose id ends with this.
    fn id(last: u8) -> [u8; 16] {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
    }

    fn principal(user: u8, via: Via) -> Principal {
        Principal {
            user_id: UserId::from_bytes(id(user)),
            user_name: "ada".parse().unwrap(),
            via,
            rate_per_second: None,
        }
    }

    fn with_key(user: u8, key: u8) -> Principal {
        let id = ApiKeyId::from_bytes(id(key));
        let (scopes, functions) = (Vec::new(), Vec::new());
        principal(user, Via::ApiKey { id, scopes, functions, expires_at: None })
    }

    #[test]
    fn a_change_concerns_what_it_names() {
        let ada = [with_key(1, 11), with_key(1, 12)];
        let session = Via::Session { token_id: "t".into(), expires_at: Timestamp(i64::MAX) };
        let session = principal(1, session);
        let bob = with_key(2, 21);
        let all = [&ada[0], &ada[1], &session, &bob];
        let key = Change::ApiKey(ApiKeyId::from_bytes(id(11)));
        let account = Change::User(UserId::from_bytes(id(1)));
        for (change, expected) in [
            (Some(key), [false, true, true, true]),
            (Some(account), [false, false, false, true]),
            (Some(Change::Token), [true, true, false, true]),
            (Some(Change::Function(FunctionId::new())), [true; 4]),
            (Some(Change::DeploymentQueued), [true; 4]),
            (None, [false; 4]),
        ] {
            let epochs = Epochs::new();
            let before = epochs.now();
            match change {
                Some(change) => epochs.change(change),
                None => epochs.change_all(),
            }
            assert_eq!(all.map(|found| epochs.holds(before, found)), expected, "{change:?}");
            // What is looked up from now on holds, and what comes later is later.
            let after = epochs.now();
            epochs.change(Change::ApiKey(ApiKeyId::from_bytes(id(99))));
            assert_eq!(all.map(|found| epochs.holds(after, found)), [true; 4], "{change:?}");
            assert_eq!(all.map(|found| epochs.holds(before, found)), expected, "{change:?}");
        }
    }
}
