//! The part of a request's body that is sent while the call is under way.

use std::task::{Context, Poll};

use cloudserve_protocol::wire::{MAX_CHUNK_BYTES, ToWorker};

use super::Exchange;
use crate::upload::Piece;

/// How much of a request's body is gathered before it leaves: each write wakes the worker.
const UPLOAD_AT_ONCE_BYTES: usize = 4 * MAX_CHUNK_BYTES;

/// What there is of a request's body for the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gathered {
    /// All that may be sent now.
    All,
    /// As much as leaves at once; there may be more.
    Enough,
    /// Some that has just come. What has come behind it is not here before the connection has had
    /// its turn.
    Part,
}

impl Exchange {
    /// Sends what there is to send.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        loop {
            let gathered = self.gather_upload(cx);
            if gathered == Gathered::Part {
                cx.waker().wake_by_ref();
                return;
            }
            if matches!(self.worker.poll_flush(cx), Poll::Ready(Err(_))) {
                // The socket is broken; what there is to know is found by reading.
                self.worker.line.discard();
                self.asked.upload = None;
            }
            if gathered == Gathered::All || self.worker.line.unsent() >= UPLOAD_AT_ONCE_BYTES {
                return;
            }
        }
    }

    /// Appends what of the request's body is to leave with the next write.
    fn gather_upload(&mut self, cx: &mut Context<'_>) -> Gathered {
        let mut so_far = Gathered::All;
        while let Some(upload) = &mut self.asked.upload {
            if self.worker.line.unsent() >= UPLOAD_AT_ONCE_BYTES {
                return Gathered::Enough;
            }
            let call = self.call;
            let frame = match upload.poll_piece(cx) {
                Poll::Pending => return so_far,
                Poll::Ready(Piece::Body { bytes, end }) => {
                    if end {
                        self.asked.upload = None;
                    }
                    ToWorker::Body { call, bytes, end }
                }
                Poll::Ready(Piece::Trailers(trailers)) => {
                    self.asked.upload = None;
                    ToWorker::Trailers { call, trailers }
                }
                Poll::Ready(Piece::Aborted(fault)) => {
                    self.asked.upload = None;
                    self.upload_fault = Some(fault);
                    ToWorker::BodyAborted { call }
                }
            };
            self.worker.send(&frame);
            so_far = Gathered::Part;
        }
        Gathered::All
    }
}
