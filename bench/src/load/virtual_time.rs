//! Time that passes only when everybody waits, and servers whose delays are known. A minute of
//! load takes milliseconds, and gives the same figures on any machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures::task::noop_waker;

use crate::client::{Answer, CallError, Clock, Lane, Request, Sleeper};

/// A world with a time of its own.
#[derive(Clone)]
pub(crate) struct World(Rc<State>);

struct State {
    now: Cell<u64>,
    /// Who waits until when; the number keeps equal instants apart, in their order.
    sleeping: RefCell<BTreeMap<(u64, u64), Waker>>,
    n_sleeps: Cell<u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self(Rc::new(State {
            now: Cell::new(0),
            sleeping: RefCell::default(),
            n_sleeps: Cell::new(0),
        }))
    }

    pub(crate) fn clock(&self) -> VirtualClock {
        VirtualClock(self.clone())
    }

    async fn until(&self, at: u64) {
        let number = self.0.n_sleeps.get();
        self.0.n_sleeps.set(number + 1);
        poll_fn(|cx| {
            if self.0.now.get() >= at {
                return Poll::Ready(());
            }
            self.0.sleeping.borrow_mut().insert((at, number), cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs to the end. When nothing is left to do at an instant, the next one comes.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = noop_waker();
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            let next = self.0.sleeping.borrow_mut().pop_first();
            let ((at, _), sleeper) = next.expect("somebody waits for something but time");
            self.0.now.set(at.max(self.0.now.get()));
            sleeper.wake();
        }
    }
}

pub(crate) struct VirtualClock(World);

impl Clock for VirtualClock {
    type Sleeper = VirtualSleeper;

    fn now(&self) -> u64 {
        self.0.0.now.get()
    }

    fn sleeper(&self) -> io::Result<VirtualSleeper> {
        Ok(VirtualSleeper(self.0.clone()))
    }
}

pub(crate) struct VirtualSleeper(World);

impl Sleeper for VirtualSleeper {
    async fn until(&mut self, at: u64) {
        self.0.until(at).await;
    }
}

/// A connection to a server that takes these delays, in turn.
pub(crate) struct KnownDelays {
    world: World,
    delays: Vec<u64>,
    calls: usize,
}

impl KnownDelays {
    pub(crate) fn new(world: &World, delays: Vec<u64>) -> Self {
        Self { world: world.clone(), delays, calls: 0 }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls
    }
}

fn good() -> Answer {
    Answer { status: 200, ..Answer::default() }
}

impl Lane for KnownDelays {
    async fn call(&mut self, _: &Request, _: bool) -> Result<Answer, CallError> {
        let delay = self.delays[self.calls % self.delays.len()];
        self.calls += 1;
        self.world.until(self.world.0.now.get() + delay).await;
        Ok(good())
    }
}

/// A connection to a server that answers after `delay`, but not within `stall`.
pub(crate) struct Stalling {
    world: World,
    delay: u64,
    stall: Range<u64>,
}

impl Stalling {
    pub(crate) fn new(world: &World, delay: u64, stall: Range<u64>) -> Self {
        Self { world: world.clone(), delay, stall }
    }
}

impl Lane for Stalling {
    async fn call(&mut self, _: &Request, _: bool) -> Result<Answer, CallError> {
        let done = self.world.0.now.get() + self.delay;
        let done = if self.stall.contains(&done) { self.stall.end } else { done };
        self.world.until(done).await;
        Ok(good())
    }
}
