//! A request's body that goes straight to where JavaScript reads it.

use std::cell::Cell;

use cloudserve_protocol::wire::{FromWorker, INITIAL_UPLOAD_CREDIT_BYTES};
use deno_core::v8;

use super::Host;

/// How much of a request's body is taken before more of it is asked for.
const CREDIT_STEP_BYTES: usize = INITIAL_UPLOAD_CREDIT_BYTES as usize / 8;

/// Memory for all of a request's body, and how much of it is there.
pub(super) struct Filling {
    call: u32,
    whole: v8::SharedRef<v8::BackingStore>,
    at: usize,
    /// So much was taken for which no more was asked for yet.
    owed_bytes: usize,
}

impl Host {
    /// More of the request's body goes into this memory, from there on.
    pub(crate) fn fill(&self, call: u32, whole: v8::SharedRef<v8::BackingStore>, at: usize) {
        if self.is_under_way(call) {
            self.filling.replace(Some(Filling { call, whole, at, owed_bytes: 0 }));
        }
    }

    /// How much of that memory is full by now; no more goes into it.
    pub(crate) fn filled(&self, call: u32) -> Option<usize> {
        let filling = self.filling.borrow_mut().take_if(|filling| filling.call == call);
        filling.map(|filling| filling.at)
    }

    /// Takes a piece of the request's body, if there is memory for it. What does not fit is left.
    pub(crate) fn take_piece(&self, call: u32, piece: &[u8], end: bool) -> bool {
        let mut filling = self.filling.borrow_mut();
        let Some(filling) = filling.as_mut().filter(|filling| filling.call == call) else {
            return false;
        };
        let room: &[Cell<u8>] = &filling.whole;
        let Some(room) = room.get(filling.at..).and_then(|room| room.get(..piece.len())) else {
            return false;
        };
        let to = room.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: the memory is as long as the piece, and it is V8's, which the piece is not; cells may
        // be written to.
        unsafe { to.copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
        filling.at += piece.len();
        filling.owed_bytes += piece.len();
        if !end && filling.owed_bytes >= CREDIT_STEP_BYTES {
            let bytes = u32::try_from(std::mem::take(&mut filling.owed_bytes)).unwrap_or(u32::MAX);
            self.send(&FromWorker::Credit { call, bytes });
        }
        true
    }
}
