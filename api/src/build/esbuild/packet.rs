//! esbuild's service protocol: packets of tagged values over standard input and output.
//!
//! A packet is its length, its id (doubled; odd in an answer) and one value; all integers are 32
//! bits, little endian. The protocol belongs to one version of esbuild: both sides check that they
//! are the same.

use bytes::{Buf, BufMut, Bytes};

/// Values may be nested this deep.
const MAX_DEPTH: usize = 32;

/// A value of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(u32),
    Text(String),
    Bytes(Bytes),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The entry of a map; `Null` if there is none.
    pub(super) fn get(&self, key: &str) -> &Self {
        let Self::Map(entries) = self else { return &Self::Null };
        entries.iter().find(|(name, _)| name == key).map_or(&Self::Null, |(_, value)| value)
    }

    pub(super) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    pub(super) fn int(&self) -> u32 {
        if let Self::Int(value) = self { *value } else { 0 }
    }

    pub(super) fn list(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => Bytes::new(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// A map literal.
pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A request or the answer to one.
#[derive(Debug, PartialEq)]
pub(super) struct Packet {
    pub(super) id: u32,
    pub(super) is_request: bool,
    pub(super) value: Value,
}

impl Packet {
    /// The packet with its length in front.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.put_u32_le(self.id << 1 | u32::from(!self.is_request));
        put_value(&mut out, &self.value);
        let length = to_u32(out.len() - 4);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out
    }

    /// Reads a packet whose length was taken off. `None`: it is malformed.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let id = bytes.try_get_u32_le().ok()?;
        let value = take_value(&mut bytes, MAX_DEPTH)?;
        bytes.is_empty().then_some(Self { id: id >> 1, is_request: id & 1 == 0, value })
    }
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("what we send is far below 4 GB")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(to_u32(bytes.len()));
    out.put_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.put_u8(0),
        Value::Bool(value) => out.put_slice(&[1, u8::from(*value)]),
        Value::Int(value) => {
            out.put_u8(2);
            out.put_u32_le(*value);
        }
        Value::Text(text) => {
            out.put_u8(3);
            put_bytes(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.put_u8(4);
            put_bytes(out, bytes);
        }
        Value::List(items) => {
            out.put_u8(5);
            out.put_u32_le(to_u32(items.len()));
            for item in items {
                put_value(out, item);
            }
        }
        Value::Map(entries) => {
            out.put_u8(6);
            out.put_u32_le(to_u32(entries.len()));
            for (name, value) in entries {
                put_bytes(out, name.as_bytes());
                put_value(out, value);
            }
        }
    }
}

fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32_le().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn take_text(from: &mut Bytes) -> Option<String> {
    take_bytes(from).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn take_value(from: &mut Bytes, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    Some(match from.try_get_u8().ok()? {
        0 => Value::Null,
        1 => Value::Bool(from.try_get_u8().ok()? != 0),
        2 => Value::Int(from.try_get_u32_le().ok()?),
        3 => Value::Text(take_text(from)?),
        4 => Value::Bytes(take_bytes(from)?),
        5 => {
            let count = from.try_get_u32_le().ok()?;
            Value::List((0..count).map(|_| take_value(from, depth)).collect::<Option<_>>()?)
        }
        6 => {
            let count = from.try_get_u32_le().ok()?;
            let entries = (0..count).map(|_| Some((take_text(from)?, take_value(from, depth)?)));
            Value::Map(entries.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_round_trip_and_cut_ones_are_refused() {
        let packet = Packet {
            id: 7,
            is_request: true,
            value: map([
                ("null", Value::Null),
                ("flag", true.into()),
                ("count", Value::Int(3)),
                ("text", "é".into()),
                ("list", Value::List(vec![Value::Bytes(Bytes::from_static(b"x")), Value::Null])),
            ]),
        };
        let encoded = Bytes::from(packet.encode());
        assert_eq!(encoded.len() - 4, u32::from_le_bytes(*encoded.first_chunk().unwrap()) as usize);
        assert_eq!(Packet::decode(encoded.slice(4..)), Some(packet));
        for end in 4..encoded.len() {
            assert_eq!(Packet::decode(encoded.slice(4..end)), None);
        }
        let huge = Bytes::from_static(b"\0\0\0\0\x05\xff\xff\xff\xff");
        assert_eq!(Packet::decode(huge), None);
    }
}
