//! Room for answers that come whole.
//!
//! Such an answer is in the supervisor's memory from its first byte until all of it was sent on, however
//! slowly its caller reads. So only so much of each account's is taken in at a time: what is more waits in
//! the workers that made it, which do nothing else meanwhile, until the deadline of its call. Invariant: a
//! worker waits at most once, and no longer than its process lives.

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
    /// By worker.
    waiting: Vec<(u64, Waker)>,
}

impl Rooms {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, accounts: Mutex::default() }
    }

    /// Room for an answer of so many bytes from this worker, unless more than there may be is taken already:
    /// by then the gateway admits no calls, and what it has admitted one after the other finds room. Whoever
    /// waits is woken as well when the worker is [`Rooms::gone`].
    pub(crate) fn poll_take(
        self: &Arc<Self>,
        owner: UserId,
        worker: u64,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Room> {
        let bytes = bytes as u64;
        let mut accounts = self.accounts.lock();
        let account = accounts.entry(owner).or_default();
        if self.max_bytes != 0 && account.taken_bytes > self.max_bytes {
            let before = account.stop_waiting(worker);
            account.waiting.push((worker, cx.waker().clone()));
            drop(accounts);
            // Not while it is locked: it may be the last that keeps a task, and that one's room.
            drop(before);
            return Poll::Pending;
        }
        account.taken_bytes = account.taken_bytes.saturating_add(bytes);
        Poll::Ready(Room { rooms: self.clone(), owner, bytes })
    }

    /// The process of a worker is gone: its answer will never be whole.
    pub(crate) fn gone(&self, worker: u64) {
        let mut accounts = self.accounts.lock();
        let waker = accounts.values_mut().find_map(|account| account.stop_waiting(worker));
        drop(accounts);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives room back; says who waits for some.
    fn give_back(&self, owner: UserId, bytes: u64) -> Vec<(u64, Waker)> {
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

impl Account {
    fn stop_waiting(&mut self, worker: u64) -> Option<Waker> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == worker)?;
        Some(self.waiting.swap_remove(at).1)
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
        for (_, waker) in self.rooms.give_back(self.owner, self.bytes) {
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
    fn an_account_has_so_much_room_and_some_for_the_answer_that_goes_beyond() {
        let told = Arc::new(Told::default());
        let waker = Waker::from(told.clone());
        let take = |rooms: &Arc<Rooms>, owner, bytes| {
            rooms.poll_take(owner, 1, bytes, &Context::from_waker(&waker))
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
        let of_bob = [60, 40, 500].map(|bytes| take(&rooms, bob, bytes));
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

    #[test]
    fn nobody_waits_for_a_worker_that_is_gone() {
        let rooms = Arc::new(Rooms::new(100));
        let ada = UserId::new();
        let told = [(); 3].map(|()| Arc::new(Told::default()));
        let take = |worker, told: &Arc<Told>| {
            let waker = Waker::from(told.clone());
            rooms.poll_take(ada, worker, 101, &Context::from_waker(&waker))
        };
        let Poll::Ready(room) = take(1, &told[0]) else { panic!("nothing else is there") };
        // The third goes on with the call of the second.
        for (worker, told) in [(1, &told[0]), (2, &told[1]), (2, &told[2])] {
            assert!(take(worker, told).is_pending());
        }
        let heard = || told.each_ref().map(|told| told.0.load(Relaxed));
        rooms.gone(2);
        rooms.gone(2);
        assert_eq!(heard(), [0, 0, 1]);
        assert_eq!(Arc::strong_count(&told[1]) + Arc::strong_count(&told[2]), 2, "none is kept");
        drop(room);
        assert_eq!(heard(), [1, 0, 1]);
    }
}
