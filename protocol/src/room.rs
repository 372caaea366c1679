//! Room for what lives as long as a call: small pieces of one larger buffer, in place of an
//! allocation for each and another for the count of its references.
//!
//! Each piece keeps all of the buffer that it is of, so this is for pieces that come and go, and
//! not for what stays.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};

/// A buffer, and the largest of which the rest is kept: a piece that outgrew it has one of its own.
const ROOM_BYTES: usize = 4 * 1024;

thread_local! {
    /// What of this thread's buffer is not used yet.
    static REST: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// An empty buffer with room for at least so much, for [`finish`].
#[must_use]
pub fn take(bytes: usize) -> BytesMut {
    let mut room = REST.try_with(Cell::take).unwrap_or_default();
    if room.capacity() < bytes {
        room.reserve(bytes.max(ROOM_BYTES));
    }
    room
}

/// What was written. The rest is for whoever takes room next.
#[must_use]
pub fn finish(mut room: BytesMut) -> Bytes {
    let written = room.split().freeze();
    if room.capacity() > 0 && written.len() + room.capacity() <= ROOM_BYTES {
        // An error says that the thread ends.
        let _ = REST.try_with(|rest| rest.set(room));
    }
    written
}

/// The same bytes.
#[must_use]
pub fn copy(bytes: &[u8]) -> Bytes {
    let mut room = take(bytes.len());
    room.put_slice(bytes);
    finish(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_what_they_are_however_many_there_are() {
        let texts: Vec<_> = (0..2_000).map(|n| format!("piece {n}")).collect();
        let pieces: Vec<_> = texts.iter().map(|text| copy(text.as_bytes())).collect();
        let large = copy(&[7; 3 * ROOM_BYTES]);
        let mut outer = take(4);
        outer.put_slice(b"out");
        let inner = copy(b"in");
        outer.put_slice(b"er");
        assert_eq!((&finish(outer)[..], &inner[..]), (&b"outer"[..], &b"in"[..]));
        assert!(large.iter().all(|byte| *byte == 7));
        assert!(texts.iter().zip(&pieces).all(|(text, piece)| text.as_bytes() == piece));
        assert!(take(1).capacity() <= ROOM_BYTES);
    }

    #[test]
    fn small_pieces_keep_no_large_buffer() {
        // On a thread whose buffer nobody has used.
        let fresh = std::thread::spawn(|| {
            let mut large = take(1);
            // Twice the buffer, but for the rest.
            large.put_slice(&[7; 2 * ROOM_BYTES - 10]);
            drop(finish(large));
            take(1).capacity()
        });
        assert_eq!(fresh.join().unwrap(), ROOM_BYTES);
    }
}
