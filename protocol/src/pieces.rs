//! Small pieces of one larger buffer, for what lives as long as a call: in place of an allocation
//! for each and another for the count of its references.
//!
//! Each piece keeps all of the buffer that it is of, so this is for pieces that come and go, and
//! not for what stays.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};

/// A buffer, and the largest of which the rest is kept: a piece that outgrew it has one of its own.
const BUFFER_BYTES: usize = 4 * 1024;

thread_local! {
    /// What of this thread's buffer is not used yet.
    static REST: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// An empty piece with room for at least so much, for [`finish`].
#[must_use]
pub fn take(bytes: usize) -> BytesMut {
    let mut piece = REST.try_with(Cell::take).unwrap_or_default();
    if piece.capacity() < bytes {
        piece.reserve(bytes.max(BUFFER_BYTES));
    }
    piece
}

/// What was written. The rest is for whoever begins a piece next.
#[must_use]
pub fn finish(mut piece: BytesMut) -> Bytes {
    let written = piece.split().freeze();
    if piece.capacity() > 0 && written.len() + piece.capacity() <= BUFFER_BYTES {
        // An error says that the thread ends.
        let _ = REST.try_with(|rest| rest.set(piece));
    }
    written
}

/// The same bytes.
#[must_use]
pub fn copy(bytes: &[u8]) -> Bytes {
    let mut piece = take(bytes.len());
    piece.put_slice(bytes);
    finish(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_what_they_are_however_many_there_are() {
        let texts: Vec<_> = (0..2_000).map(|n| format!("piece {n}")).collect();
        let pieces: Vec<_> = texts.iter().map(|text| copy(text.as_bytes())).collect();
        let large = copy(&[7; 3 * BUFFER_BYTES]);
        let mut outer = take(4);
        outer.put_slice(b"out");
        let inner = copy(b"in");
        outer.put_slice(b"er");
        assert_eq!((&finish(outer)[..], &inner[..]), (&b"outer"[..], &b"in"[..]));
        assert!(large.iter().all(|byte| *byte == 7));
        assert!(texts.iter().zip(&pieces).all(|(text, piece)| text.as_bytes() == piece));
        assert!(take(1).capacity() <= BUFFER_BYTES);
    }

    #[test]
    fn small_pieces_keep_no_large_buffer() {
        // On a thread whose buffer nobody has used.
        let fresh = std::thread::spawn(|| {
            let mut large = take(1);
            // Twice the buffer, but for the rest.
            large.put_slice(&[7; 2 * BUFFER_BYTES - 10]);
            drop(finish(large));
            take(1).capacity()
        });
        assert_eq!(fresh.join().unwrap(), BUFFER_BYTES);
    }
}
