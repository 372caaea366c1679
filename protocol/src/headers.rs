//! HTTP headers in the form in which they cross process boundaries: one buffer, written once,
//! passed on untouched and read once.
//!
//! Layout, per header: name length (u16 LE), value length (u32 LE), name, value. Names are lower
//! case. Repeated names (`set-cookie`) stay separate entries, in order.

use bytes::{BufMut, Bytes, BytesMut};

use crate::pieces;

/// An encoded list of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderBlock(Bytes);

/// A buffer is not a well-formed header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed header block")]
pub struct MalformedHeaders;

const ENTRY_PREFIX: usize = 6;

impl HeaderBlock {
    /// Takes a buffer that came from another process, after checking that it can be walked.
    pub fn parse(bytes: Bytes) -> Result<Self, MalformedHeaders> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = split_entry(rest).ok_or(MalformedHeaders)?.2;
        }
        Ok(Self(bytes))
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Name and value of each header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, value, tail) = split_entry(rest)?;
            rest = tail;
            Some((name, value))
        })
    }

    /// The first value under this lower-case name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| v)
    }
}

fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<ENTRY_PREFIX>()?;
    let name_len = usize::from(u16::from_le_bytes([prefix[0], prefix[1]]));
    let value_len = u32::from_le_bytes([prefix[2], prefix[3], prefix[4], prefix[5]]) as usize;
    let (name, rest) = rest.split_at_checked(name_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((name, value, rest))
}

/// Builds a [`HeaderBlock`].
#[derive(Debug, Default)]
pub struct HeaderBlockBuilder(BytesMut);

impl HeaderBlockBuilder {
    /// An empty builder with room for typical request headers.
    #[must_use]
    pub fn new() -> Self {
        Self(pieces::take(512))
    }

    /// Adds one header. A name over 64 KB or a value over 4 GB is left out; HTTP parsers refuse
    /// both long before.
    ///
    /// Inlined for names that are constants, which are then stored and not copied.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len()))
        else {
            return;
        };
        self.0.reserve(ENTRY_PREFIX + name.len() + value.len());
        self.0.put_u16_le(name_len);
        self.0.put_u32_le(value_len);
        self.0.put_slice(name);
        self.0.put_slice(value);
    }

    /// The finished block.
    #[must_use]
    pub fn finish(self) -> HeaderBlock {
        HeaderBlock(pieces::finish(self.0))
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderBlock {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let mut builder = HeaderBlockBuilder::new();
        for (name, value) in entries {
            builder.push(name.as_ref(), value.as_ref());
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_keeps_order_and_repeats() {
        let block: HeaderBlock =
            [("set-cookie", "a=1"), ("x-empty", ""), ("set-cookie", "b=2")].into_iter().collect();
        let again = HeaderBlock::parse(block.as_bytes().clone()).unwrap();
        let got: Vec<_> = again.iter().collect();
        assert_eq!(
            got,
            [(&b"set-cookie"[..], &b"a=1"[..]), (b"x-empty", b""), (b"set-cookie", b"b=2")]
        );
    }

    #[test]
    fn cut_blocks_are_refused() {
        let block: HeaderBlock = [("name", "value")].into_iter().collect();
        for len in 1..block.as_bytes().len() {
            assert!(HeaderBlock::parse(block.as_bytes().slice(..len)).is_err(), "{len}");
        }
    }
}
