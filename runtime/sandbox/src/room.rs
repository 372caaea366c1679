//! Room for answers that come whole.
//!
//! Such an answer is in the supervisor's memory from its first byte until all of it was sent on, however
//! slowly its caller reads. So only so much of each account's is taken in at a time: what is more waits in
//! the workers that made it, which do nothing else meanwhile, until the deadline of its call.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cloudserve_protocol::ids::UserId;
use parking_lot::Mutex;

/// Smaller answers are not counted: one for each call that an account may have under way.
pub(crate) const COUNTED_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rooms {
    /// For each account; 0: no bound.
    max_bytes: u64,
    /// Those that have some.
    accounts: Mutex<HashMap<UserId, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    taken_bytes: u64,
    waiting: Vec<Waker>,
}

impl Rooms {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, accounts: Mutex::default() }
    }

    /// Room for an answer of so many bytes. There always is for one alone.
    pub(crate) fn poll_take(
        self: &Arc<Self>,
        owner: UserId,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Room> {
        let bytes = bytes as u64;
        let mut accounts = self.accounts.lock();
        let account = accounts.entry(owner).or_default();
        let taken_bytes = account.taken_bytes.saturating_add(bytes);
        if self.max_bytes != 0 && account.taken_bytes != 0 && taken_bytes > self.max_bytes {
            if !account.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                account.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        account.taken_bytes = taken_bytes;
        Poll::Ready(Room { rooms: self.clone(), owner, bytes })
    }

    /// Gives room back; says who waits for some.
    fn give_back(&self, owner: UserId, bytes: u64) -> Vec<Waker> {
        let mut accounts = self.accounts.lock();
        let Some(account) = accounts.get_mut(&owner) else { return Vec::new() };
        account.taken_bytes = account.taken_bytes.saturating_sub(bytes);
        let waiting = std::mem::take(&mut account.waiting);
        if account.taken_bytes == 0 {
            accounts.remove(&owner);
        }
        waiting
    }
}

/// Taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    owner: UserId,
    bytes: u64,
}

impl Room {
    /// The same bytes, which have the room for as long as somebody has them.
    pub(crate) fn hold(self, answer: Bytes) -> Bytes {
        Bytes::from_owner(Housed { answer, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for waker in self.rooms.give_back(self.owner, self.bytes) {
            waker.wake();
        }
    }
}

struct Housed {
    answer: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Housed {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_account_has_so_much_room_and_some_for_one_answer_of_any_size() {
        let told = Arc::new(Told::default());
        let waker = Waker::from(told.clone());
        let take = |rooms: &Arc<Rooms>, owner, bytes| {
            rooms.poll_take(owner, bytes, &Context::from_waker(&waker))
        };
        let rooms = Arc::new(Rooms::new(100));
        let (ada, bob) = (UserId::new(), UserId::new());
        let Poll::Ready(large) = take(&rooms, ada, 500) else { panic!("nothing else is there") };
        for _ in 0..2 {
            assert!(take(&rooms, ada, 1).is_pending());
        }
        let answer = large.hold(Bytes::from_static(b"answer"));
        let rest = answer.slice(3..);
        drop(answer);
        let of_bob = [60, 40].map(|bytes| take(&rooms, bob, bytes));
        assert!(of_bob.iter().all(Poll::is_ready) && take(&rooms, bob, 1).is_pending());
        assert_eq!((told.0.load(Relaxed), &rest[..]), (0, &b"wer"[..]));
        drop(rest);
        assert_eq!(told.0.load(Relaxed), 1, "once, however often it asked");
        drop(of_bob);
        assert!(rooms.accounts.lock().is_empty());

        let unbounded = Arc::new(Rooms::new(0));
        let all = [(); 3].map(|()| take(&unbounded, ada, 500));
        assert!(all.iter().all(Poll::is_ready));
    }
}
