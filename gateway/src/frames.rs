//! WebSocket frames, as far as somebody in the middle has to know them: where one ends, and what
//! a goodbye looks like.

/// First byte of a Close frame that is whole: FIN and opcode 8.
const CLOSE: u8 = 0x88;
const OPCODE: u8 = 0x0f;
const CLOSE_OPCODE: u8 = 0x8;
const MASKED: u8 = 0x80;
const SHORT_LENGTH: u8 = 0x7f;
const MASK_BYTES: usize = 4;

/// Two bytes, eight of a long length and a mask.
const MAX_HEAD_BYTES: usize = 14;

/// A control frame holds no more: the code and this much text.
const MAX_REASON_BYTES: usize = 123;

/// Follows the frames of one direction without looking into them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; MAX_HEAD_BYTES],
    head_bytes: usize,
    payload_left: u64,
    is_closed: bool,
}

impl Frames {
    /// What was sent next.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let passed = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= passed;
                bytes = &bytes[usize::try_from(passed).unwrap_or(bytes.len())..];
                continue;
            }
            self.head[self.head_bytes] = *first;
            self.head_bytes += 1;
            bytes = rest;
            if let Some(payload) = payload_bytes(&self.head[..self.head_bytes]) {
                self.is_closed |= self.head[0] & OPCODE == CLOSE_OPCODE;
                self.head_bytes = 0;
                self.payload_left = payload;
            }
        }
    }

    /// Whether a Close frame would be understood now: the last frame is complete and was none.
    pub(crate) fn may_close(&self) -> bool {
        self.head_bytes == 0 && self.payload_left == 0 && !self.is_closed
    }
}

/// The length of the payload, once the head is complete.
fn payload_bytes(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask_bytes = if second & MASKED == 0 { 0 } else { MASK_BYTES };
    let (length, length_bytes) = match second & SHORT_LENGTH {
        126 => (head.get(2..4)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)), 2),
        127 => (head.get(2..10)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)), 8),
        length => (length.into(), 0),
    };
    (head.len() >= 2 + length_bytes + mask_bytes).then_some(length)
}

/// A server's Close frame.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    // Code and reason: at most 125.
    let length = u8::try_from(2 + reason.len()).unwrap_or(2);
    [&[CLOSE, length], &code.to_be_bytes()[..], reason].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match length {
            0..=125 => frame.push(u8::try_from(length).unwrap()),
            126..=0xffff => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Payloads full of what looks like Close frames.
        frame.extend(std::iter::repeat_n(CLOSE, length));
        frame
    }

    #[test]
    fn frames_end_where_they_end_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 100_000];
        let whole: Vec<Vec<u8>> = lengths.iter().map(|length| frame(2, *length)).collect();
        for step in [1, 2, 3, 7, 64, 4096, usize::MAX] {
            let mut frames = Frames::default();
            for frame in &whole {
                for (i, piece) in frame.chunks(step).enumerate() {
                    assert!(i == 0 || !frames.may_close(), "{} by {step}", frame.len());
                    frames.pass(piece);
                }
                assert!(frames.may_close(), "{} by {step}", frame.len());
            }
        }
    }

    #[test]
    fn masked_frames_are_followed_too() {
        let mut frames = Frames::default();
        frames.pass(&[0x81, 0x82, 1, 2, 3, 4, 5]);
        assert!(!frames.may_close());
        frames.pass(&[6]);
        assert!(frames.may_close());
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut frames = Frames::default();
        frames.pass(&close_frame(1000, ""));
        assert!(!frames.may_close());
    }

    #[test]
    fn goodbyes_fit_into_a_control_frame() {
        assert_eq!(close_frame(1001, "timeout"), b"\x88\x09\x03\xe9timeout");
        assert_eq!(close_frame(1011, &"é".repeat(200)).len(), 2 + 2 + 122);
    }
}
