//! What is sent to a worker. Unlike reading, which is its owner's alone, calls that are to wait in
//! the worker send their requests while another call owns it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Buf;
use cloudserve_channel::Channel;
use cloudserve_protocol::claims::{ClaimSlots, MAX_DISTANCE};
use cloudserve_protocol::wire::ToWorker;
use parking_lot::Mutex;

use crate::asked::Asked;
use crate::claims::Claims;
use crate::outgoing::Outgoing;

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Arc<Channel>,
    sending: Mutex<Sending>,
    claims: OnceLock<Claims>,
    /// The call that owns the worker, once it has sent its request: others may follow. 0: none.
    owner: AtomicU32,
    /// The call that was sent last.
    last_call: AtomicU32,
}

#[derive(Debug, Default)]
struct Sending {
    outgoing: Outgoing,
}

impl Line {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self {
            channel,
            sending: Mutex::default(),
            claims: OnceLock::new(),
            owner: AtomicU32::new(0),
            last_call: AtomicU32::new(0),
        }
    }

    /// From now on calls may wait in the worker.
    pub(crate) fn share(&self, claims: Claims) {
        // Once in the life of a worker.
        let _ = self.claims.set(claims);
    }

    /// The worker gets a new owner, whose request must be the first.
    pub(crate) fn begin(&self) {
        self.owner.store(0, Ordering::Release);
    }

    /// A call that has waited owns the worker.
    pub(crate) fn hand_over(&self, call: u32) {
        self.owner.store(call, Ordering::Release);
    }

    /// Whether a call that is to wait may send its request now: the owner has sent its own, and calls
    /// that gave up meanwhile have not used up the numbers that tell it from others.
    pub(crate) fn takes_more(&self) -> bool {
        let owner = self.owner.load(Ordering::Acquire);
        let sent_since = self.last_call.load(Ordering::Relaxed).wrapping_sub(owner);
        self.claims.get().is_some() && owner != 0 && sent_since < MAX_DISTANCE
    }

    /// What decides who runs the calls that were sent to the worker.
    fn slots(&self) -> Option<&ClaimSlots> {
        self.claims.get().map(Claims::slots)
    }

    /// Takes a call back from the worker. Whether it can be sent elsewhere: it has not begun, and
    /// will not.
    pub(crate) fn take_back(&self, call: u32) -> bool {
        self.slots().is_some_and(|slots| slots.revoke(call))
    }

    /// Appends a frame to what [`Line::flush`] sends.
    pub(crate) fn send(&self, frame: &ToWorker) {
        self.sending.lock().outgoing.push(frame);
    }

    /// Appends the request of the worker's owner; says the call's number on the wire.
    pub(crate) fn ask(&self, asked: &mut Asked) -> u32 {
        let call = self.append(asked);
        self.owner.store(call, Ordering::Release);
        call
    }

    /// Appends a request, which waits in the worker if it is not the owner's.
    pub(crate) fn append(&self, asked: &mut Asked) -> u32 {
        let mut sending = self.sending.lock();
        // 0 means "no call".
        let call = self.last_call.load(Ordering::Relaxed).checked_add(1).unwrap_or(1);
        self.last_call.store(call, Ordering::Relaxed);
        let slots = self.slots().filter(|_| asked.is_repeatable());
        if let Some(slots) = slots {
            slots.offer(call);
        }
        sending.outgoing.push(asked.frame(call, slots.is_some()));
        call
    }

    /// Bytes that are not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.sending.lock().outgoing.remaining()
    }

    /// Gives up on what is not sent yet: the socket is broken.
    pub(crate) fn discard(&self) {
        self.sending.lock().outgoing.clear();
    }

    /// Gives a large buffer back.
    pub(crate) fn shrink(&self) {
        self.sending.lock().outgoing.shrink();
    }

    /// Sends what the socket takes now. The owner of the worker sends the rest; that the socket is
    /// broken, it finds when it reads.
    pub(crate) fn flush(&self) {
        let _ = self.channel.write(&mut self.sending.lock().outgoing);
    }

    /// Sends what was appended, as far as the socket takes it. The owner's.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_write(cx, &mut self.sending.lock().outgoing)
    }
}
