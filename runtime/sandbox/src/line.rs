//! What is sent to a worker. Unlike reading, which is its owner's alone, calls that are to wait in
//! the worker send their requests while another call owns it.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use cloudserve_protocol::claims::ClaimSlots;
use cloudserve_protocol::wire::ToWorker;
use parking_lot::Mutex;
use tokio::net::unix::OwnedWriteHalf;

use crate::asked::Asked;
use crate::claims::Claims;

/// A buffer above this size is given back when a worker goes idle.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedWriteHalf,
    sending: Mutex<Sending>,
    claims: OnceLock<Claims>,
    /// The call that owns the worker has sent its request: others may follow.
    leads: AtomicBool,
}

#[derive(Debug, Default)]
struct Sending {
    outgoing: BytesMut,
    last_call: u32,
}

impl Line {
    pub(crate) fn new(socket: OwnedWriteHalf) -> Self {
        Self {
            socket,
            sending: Mutex::default(),
            claims: OnceLock::new(),
            leads: AtomicBool::new(false),
        }
    }

    /// From now on calls may wait in the worker.
    pub(crate) fn share(&self, claims: Claims) {
        // Once in the life of a worker.
        let _ = self.claims.set(claims);
    }

    /// The worker gets a new owner, whose request must be the first.
    pub(crate) fn begin(&self) {
        self.leads.store(false, Ordering::Release);
    }

    /// Whether a call that is to wait may send its request now.
    pub(crate) fn takes_more(&self) -> bool {
        self.claims.get().is_some() && self.leads.load(Ordering::Acquire)
    }

    /// What decides who runs the calls that wait in the worker.
    pub(crate) fn slots(&self) -> Option<&ClaimSlots> {
        self.claims.get().map(Claims::slots)
    }

    /// Appends a frame to what [`Line::flush`] sends.
    pub(crate) fn send(&self, frame: &ToWorker) {
        frame.encode(&mut self.sending.lock().outgoing);
    }

    /// Appends a request; says the call's number on the wire.
    pub(crate) fn ask(&self, asked: &mut Asked) -> u32 {
        let call = self.append(asked, false);
        self.leads.store(true, Ordering::Release);
        call
    }

    /// Appends a request that waits in the worker.
    pub(crate) fn ask_to_wait(&self, asked: &mut Asked) -> u32 {
        self.append(asked, true)
    }

    fn append(&self, asked: &mut Asked, waits: bool) -> u32 {
        let mut sending = self.sending.lock();
        // 0 means "no call".
        sending.last_call = sending.last_call.checked_add(1).unwrap_or(1);
        let call = sending.last_call;
        let slots = self.slots().filter(|_| waits);
        if let Some(slots) = slots {
            slots.offer(call);
        }
        asked.frame(call, slots.is_some()).encode(&mut sending.outgoing);
        call
    }

    /// Bytes that are not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.sending.lock().outgoing.len()
    }

    /// Gives up on what is not sent yet: the socket is broken.
    pub(crate) fn discard(&self) {
        self.sending.lock().outgoing.clear();
    }

    /// Gives a large buffer back.
    pub(crate) fn shrink(&self) {
        let mut sending = self.sending.lock();
        if sending.outgoing.is_empty() && sending.outgoing.capacity() > KEPT_BUFFER_BYTES {
            sending.outgoing = BytesMut::new();
        }
    }

    /// Sends what the socket takes now. The owner of the worker sends the rest; that the socket is
    /// broken, it finds when it reads.
    pub(crate) fn flush(&self) {
        let _ = self.write(&mut self.sending.lock());
    }

    /// Sends what was appended, as far as the socket takes it. The owner's.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sending = self.sending.lock();
        loop {
            match self.write(&mut sending) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.as_ref().poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn write(&self, sending: &mut Sending) -> io::Result<()> {
        while !sending.outgoing.is_empty() {
            let n = self.socket.try_write(&sending.outgoing)?;
            sending.outgoing.advance(n);
        }
        Ok(())
    }
}
