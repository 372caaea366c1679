//! A request's body on its way into the isolate. What has come at once is one piece for the
//! function: pieces are what streams and promises are paid for.

/// See the module.
#[derive(Default)]
pub(crate) struct Arriving {
    piece: Option<Piece>,
}

/// What has come of one call's body.
pub(crate) struct Piece {
    pub(crate) call: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: bool,
}

impl Arriving {
    /// More has come. Hands over what does not belong to the same piece.
    pub(crate) fn add(&mut self, call: u32, bytes: &[u8], end: bool) -> Option<Piece> {
        if let Some(piece) = self.piece.as_mut().filter(|piece| piece.call == call && !piece.end) {
            piece.bytes.extend_from_slice(bytes);
            piece.end = end;
            return None;
        }
        self.piece.replace(Piece { call, bytes: bytes.to_vec(), end })
    }

    /// There is no more just now.
    pub(crate) fn take(&mut self) -> Option<Piece> {
        self.piece.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_one_call_and_end_with_its_body() {
        let mut arriving = Arriving::default();
        let said = |piece: Option<Piece>| piece.map(|piece| (piece.call, piece.bytes, piece.end));
        assert_eq!(said(arriving.take()), None);
        assert_eq!(said(arriving.add(1, b"a", false)), None);
        assert_eq!(said(arriving.add(1, b"b", false)), None);
        assert_eq!(said(arriving.add(2, b"c", false)), Some((1, b"ab".to_vec(), false)));
        assert_eq!(said(arriving.add(2, b"", true)), None);
        assert_eq!(said(arriving.add(2, b"d", true)), Some((2, b"c".to_vec(), true)));
        assert_eq!(said(arriving.take()), Some((2, b"d".to_vec(), true)));
        assert_eq!(said(arriving.take()), None);
    }
}
