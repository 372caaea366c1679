//! The value of `server-timing`. Every answer has one, and the machinery of `format!` takes as long for
//! it as a lookup of the function does.

use cloudserve_protocol::call::Timings;
use cloudserve_protocol::pieces;
use http::HeaderValue;

const LONGEST_NUMBER: usize = "18446744073709551.615".len();
const LONGEST: usize = "queue;dur=, boot;dur=, exec;dur=".len() + 3 * LONGEST_NUMBER;

/// Where the time of a call went, in milliseconds.
pub(crate) fn server_timing(timings: Timings) -> HeaderValue {
    let mut text = Text { bytes: [0; LONGEST], length: 0 };
    for (name, us) in [
        ("queue;dur=", timings.queue_us),
        (", boot;dur=", timings.boot_us),
        (", exec;dur=", timings.exec_us),
    ] {
        text.push(name.as_bytes());
        text.push_ms(us);
    }
    HeaderValue::from_maybe_shared(pieces::copy(&text.bytes[..text.length]))
        .expect("letters, digits and signs")
}

struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..][..part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    /// With three decimals.
    fn push_ms(&mut self, us: u64) {
        let (mut ms, mut us) = (us / 1_000, us % 1_000);
        let mut number = [b'.'; LONGEST_NUMBER];
        let mut at = LONGEST_NUMBER;
        for _ in 0..3 {
            at -= 1;
            number[at] = digit(us % 10);
            us /= 10;
        }
        // The point is there.
        at -= 1;
        loop {
            at -= 1;
            number[at] = digit(ms % 10);
            ms /= 10;
            if ms == 0 {
                break;
            }
        }
        self.push(&number[at..]);
    }
}

fn digit(below_ten: u64) -> u8 {
    b'0' + below_ten.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_microsecond() {
        let timings = |queue_us, boot_us, exec_us| Timings { queue_us, boot_us, exec_us };
        for (timings, expected) in [
            (timings(0, 0, 0), "queue;dur=0.000, boot;dur=0.000, exec;dur=0.000"),
            (timings(7, 42, 999), "queue;dur=0.007, boot;dur=0.042, exec;dur=0.999"),
            (
                timings(1_000, 10_020, 1_234_567),
                "queue;dur=1.000, boot;dur=10.020, exec;dur=1234.567",
            ),
            (
                timings(u64::MAX, u64::MAX, u64::MAX),
                "queue;dur=18446744073709551.615, boot;dur=18446744073709551.615, \
                 exec;dur=18446744073709551.615",
            ),
        ] {
            assert_eq!(server_timing(timings), expected);
        }
    }
}
