//! Frames on their way into a socket: small ones in one buffer, large bodies as they came.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudserve_protocol::wire::ToWorker;

/// A body below this size is copied: that is less work than one more piece to write.
const COPIED_BYTES: usize = 4 * 1024;

/// A buffer above this size is given back when a worker goes idle.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// Pieces of one write.
pub(crate) const PIECES: usize = 8;

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

    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.last.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.last.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.last.clear();
    }

    /// The beginning of what there is to write; says how many pieces it has.
    pub(crate) fn front<'a>(&'a self, into: &mut [IoSlice<'a>; PIECES]) -> usize {
        let last = Some(&*self.last).filter(|last| !last.is_empty());
        let pieces = self.pieces.iter().map(|piece| &**piece).chain(last);
        into.iter_mut().zip(pieces).map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }

    /// So much is written.
    pub(crate) fn advance(&mut self, mut written: usize) {
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

    /// Gives a large buffer back.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() && self.last.capacity() > KEPT_BUFFER_BYTES {
            self.last = BytesMut::new();
        }
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
            while !outgoing.is_empty() {
                assert_eq!(outgoing.len(), whole.len() - written.len());
                let mut slots = [IoSlice::new(&[]); PIECES];
                let pieces = outgoing.front(&mut slots);
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
