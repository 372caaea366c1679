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
    /// A call that waits is about to [`Line::flush`].
    is_flush_due: bool,
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
        let call = self.append(&mut self.sending.lock(), asked);
        self.owner.store(call, Ordering::Release);
        call
    }

    /// Appends the request of a call that is to wait in the worker; says its number on the wire, and
    /// whether it is this call's to flush: those that come before it has done so need not.
    pub(crate) fn join(&self, asked: &mut Asked) -> (u32, bool) {
        let mut sending = self.sending.lock();
        let call = self.append(&mut sending, asked);
        (call, !std::mem::replace(&mut sending.is_flush_due, true))
    }

    fn append(&self, sending: &mut Sending, asked: &mut Asked) -> u32 {
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
        let mut sending = self.sending.lock();
        sending.is_flush_due = false;
        let _ = self.channel.write(&mut sending.outgoing);
    }

    /// Sends what was appended, as far as the socket takes it. The owner's.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_write(cx, &mut self.sending.lock().outgoing)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use bytes::BytesMut;

    use super::*;
    use crate::state::tests::asked;
    use crate::version::tests::target;

    #[tokio::test]
    async fn one_of_those_that_come_together_sends_them_all() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let line = Line::new(Arc::new(Channel::new(ours).unwrap()));
        for round in 0..2 {
            let joined = [(); 3].map(|()| line.join(&mut asked(&target())));
            assert_eq!(joined.map(|(_, has_to_flush)| has_to_flush), [true, false, false]);
            assert!(line.unsent() > 0);
            line.flush();
            assert_eq!(line.unsent(), 0, "{round}");
            let mut read = [0; 4_096];
            let n = theirs.read(&mut read).unwrap();
            let mut sent = BytesMut::from(&read[..n]);
            for (call, _) in joined {
                let frame = ToWorker::decode(&mut sent).unwrap();
                assert!(
                    matches!(frame, Some(ToWorker::Request { call: sent, .. }) if sent == call)
                );
            }
        }
    }
}
