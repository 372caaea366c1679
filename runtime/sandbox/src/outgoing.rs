//! Frames on their way into a socket: small ones in one buffer, large bodies as they came.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudserve_protocol::wire::ToWorker;

/// A body below this size is copied: that is less work than one more piece to write.
const COPIED_BYTES: usize = 4 * 1024;

/// A buffer above this size is given back when a worker goes idle.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// What comes before `last`, in order. None is empty.
    pieces: VecDeque<Bytes>,
    last: BytesMut,
}

impl Outgoing {
    /// Appends a frame.
    pub(crate) fn push(&mut self, frame: &ToWorker) {
        match frame.encode_before_body(&mut self.last) {
            None => {}
            Some(body) if body.len() < COPIED_BYTES => self.last.put_slice(&body),
            Some(body) => {
                self.pieces.push_back(self.last.split().freeze());
                self.pieces.push_back(body);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.last.clear();
    }

    /// Gives a large buffer back.
    pub(crate) fn shrink(&mut self) {
        if !self.has_remaining() && self.last.capacity() > KEPT_BUFFER_BYTES {
            self.last = BytesMut::new();
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.last.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.last, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let last = Some(&*self.last).filter(|last| !last.is_empty());
        let pieces = self.pieces.iter().map(|piece| &**piece).chain(last);
        into.iter_mut().zip(pieces).map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.last.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_as_they_are_encoded_however_the_socket_takes_them() {
        let body = |len: usize| ToWorker::Body {
            call: 3,
            bytes: (0..len).map(|n| n.to_le_bytes()[0]).collect(),
            end: false,
        };
        let frames: Vec<_> = [0, 1, COPIED_BYTES - 1, COPIED_BYTES, 2 * COPIED_BYTES + 7, 5, 9_000]
            .map(body)
            .into_iter()
            .chain([ToWorker::Cancel { call: 3 }])
            .collect();
        let mut whole = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut whole);
        }
        for step in [1, 7, 4_096, 5_000, usize::MAX] {
            let mut outgoing = Outgoing::default();
            for frame in &frames {
                outgoing.push(frame);
            }
            let mut written = Vec::new();
            while outgoing.has_remaining() {
                assert_eq!(outgoing.remaining(), whole.len() - written.len());
                let mut slots = [IoSlice::new(&[]); 8];
                let pieces = outgoing.chunks_vectored(&mut slots);
                assert_eq!(*slots[0], *outgoing.chunk());
                let front: Vec<u8> =
                    slots[..pieces].iter().flat_map(|slot| slot.to_vec()).collect();
                let taken = front.len().min(step);
                written.extend_from_slice(&front[..taken]);
                outgoing.advance(taken);
            }
            assert_eq!(written, whole, "{step} bytes at once");
        }
    }
}
