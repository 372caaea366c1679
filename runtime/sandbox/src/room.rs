//! Room for answers that come whole.
//!
//! Such an answer is in the supervisor's memory from its first byte until all of it was sent on, however
//! slowly its caller reads. So only so much of each account's is taken in at a time: what is more waits in
//! the workers that made it, which do nothing else meanwhile, until the deadline of its call. Who waits
//! first is served first, or a large answer might lose to smaller ones each time. Invariant: a worker waits at
//! most once, and no longer than its process lives.

use std::collections::{HashMap, VecDeque};
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
    /// By worker, in the order in which they came. The first is woken when there is room, and then the
    /// next by it.
    waiting: VecDeque<(u64, Waker)>,
}

impl Rooms {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, accounts: Mutex::default() }
    }

    /// Room for an answer of so many bytes from this worker, unless more than there may be is taken already,
    /// or somebody has waited for longer: by then the gateway admits no calls, and what it has admitted one
    /// after the other finds room. Whoever waits is woken as well when the worker is [`Rooms::gone`].
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
        let at = account.position(worker);
        let has_turn = at.map_or(account.waiting.is_empty(), |at| at == 0);
        if self.max_bytes != 0 && !(has_turn && account.has_room(self.max_bytes)) {
            let waker = cx.waker().clone();
            let before = if let Some(at) = at {
                Some(std::mem::replace(&mut account.waiting[at].1, waker))
            } else {
                account.waiting.push_back((worker, waker));
                None
            };
            drop(accounts);
            // Not while it is locked: it may be the last that keeps a task, and that one's room.
            drop(before);
            return Poll::Pending;
        }
        account.taken_bytes = account.taken_bytes.saturating_add(bytes);
        // Its own, if it has waited.
        let before = account.waiting.pop_front();
        let next = account.next(self.max_bytes);
        drop(accounts);
        drop(before);
        if let Some(next) = next {
            next.wake();
        }
        Poll::Ready(Room { rooms: self.clone(), owner, bytes })
    }

    /// A worker sends nothing any more: its answer will never be whole.
    pub(crate) fn gone(&self, worker: u64) {
        let mut woken = [None, None];
        let mut accounts = self.accounts.lock();
        let mut places = accounts.iter();
        let place = places.find_map(|(owner, account)| Some((*owner, account.position(worker)?)));
        if let Some((owner, at)) = place
            && let Some(account) = accounts.get_mut(&owner)
        {
            let own = account.waiting.remove(at).map(|(_, waker)| waker);
            // Who comes after it may have waited for nothing else.
            let next = if at == 0 { account.next(self.max_bytes) } else { None };
            woken = [own, next];
            if account.is_unused() {
                accounts.remove(&owner);
            }
        }
        drop(accounts);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    /// Gives room back; says who is to have it.
    fn give_back(&self, owner: UserId, bytes: u64) -> Option<Waker> {
        let mut accounts = self.accounts.lock();
        let account = accounts.get_mut(&owner)?;
        account.taken_bytes = account.taken_bytes.saturating_sub(bytes);
        let next = account.next(self.max_bytes);
        if account.is_unused() {
            accounts.remove(&owner);
        }
        next
    }
}

impl Account {
    fn position(&self, worker: u64) -> Option<usize> {
        self.waiting.iter().position(|(waiting, _)| *waiting == worker)
    }

    fn has_room(&self, max_bytes: u64) -> bool {
        self.taken_bytes <= max_bytes
    }

    /// Who has waited longest, if there is room.
    fn next(&self, max_bytes: u64) -> Option<Waker> {
        let (_, waker) = self.waiting.front().filter(|_| self.has_room(max_bytes))?;
        Some(waker.clone())
    }

    fn is_unused(&self) -> bool {
        self.taken_bytes == 0 && self.waiting.is_empty()
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
        if let Some(next) = self.rooms.give_back(self.owner, self.bytes) {
            next.wake();
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
        assert_eq!(told.0.load(Relaxed), 2);
        assert!([ada, bob].iter().all(|owner| take(&rooms, *owner, 1).is_ready()));
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

    #[test]
    fn who_waits_first_is_served_first_and_the_next_is_woken_then() {
        let rooms = Arc::new(Rooms::new(100));
        let ada = UserId::new();
        let told = [(); 4].map(|()| Arc::new(Told::default()));
        let take = |worker: usize, bytes| {
            let waker = Waker::from(told[worker].clone());
            rooms.poll_take(ada, worker as u64, bytes, &Context::from_waker(&waker))
        };
        let heard = || told.each_ref().map(|told| told.0.load(Relaxed));
        let Poll::Ready(room) = take(0, 101) else { panic!("nothing else is there") };
        for (worker, bytes) in [(1, 500), (2, 1), (3, 1)] {
            assert!(take(worker, bytes).is_pending());
        }
        drop(room);
        assert_eq!(heard(), [0, 1, 0, 0]);
        assert!(take(0, 1).is_pending() && take(2, 1).is_pending(), "the first is to come");
        rooms.gone(1);
        assert_eq!(heard(), [0, 2, 1, 0], "nobody waits for one that is gone");
        let Poll::Ready(second) = take(2, 1) else { panic!("its turn has come") };
        assert_eq!(heard(), [0, 2, 1, 1], "there is room for more");
        rooms.gone(3);
        assert_eq!(heard(), [1, 2, 1, 2]);
        let Poll::Ready(last) = take(0, 500) else { panic!("its turn has come") };
        assert!(take(1, 1).is_pending());
        drop(second);
        assert_eq!(heard(), [1, 2, 1, 2], "there is no room yet");
        rooms.gone(1);
        drop(last);
        assert!(rooms.accounts.lock().is_empty());
    }
}
