//! The bytes of frames: their length, their kind and what they are made of.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{LENGTH_BYTES, MAX_FRAME_BYTES, WireError};

/// Writes a frame whose payload `fill` appends.
pub(super) fn frame(out: &mut BytesMut, kind: u8, fill: impl FnOnce(&mut BytesMut)) {
    frame_before(out, kind, 0, fill);
}

/// Writes a frame but for its last bytes, of which there are `rest`.
pub(super) fn frame_before(
    out: &mut BytesMut,
    kind: u8,
    rest: usize,
    fill: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    fill(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES + rest).unwrap_or(u32::MAX);
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

pub(super) fn put_json<T: Serialize>(out: &mut BytesMut, value: &T) {
    // Serialising these types cannot fail: string keys, no custom serialisers, infallible writer.
    serde_json::to_writer(out.writer(), value).expect("control frames serialise");
}

pub(super) fn put_block(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

pub(super) fn take_frame(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, WireError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(WireError::TooLarge(length));
    }
    if length == 0 {
        return Err(WireError::Malformed(0));
    }
    if buffer.len() < LENGTH_BYTES + length {
        buffer.reserve(LENGTH_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    let mut payload = buffer.split_to(length).freeze();
    let kind = payload.get_u8();
    Ok(Some((kind, payload)))
}

pub(super) fn get_u8(p: &mut Bytes) -> Option<u8> {
    p.try_get_u8().ok()
}

pub(super) fn get_u16(p: &mut Bytes) -> Option<u16> {
    p.try_get_u16_le().ok()
}

pub(super) fn get_u32(p: &mut Bytes) -> Option<u32> {
    p.try_get_u32_le().ok()
}

pub(super) fn get_u64(p: &mut Bytes) -> Option<u64> {
    p.try_get_u64_le().ok()
}

pub(super) fn get_array<const N: usize>(p: &mut Bytes) -> Option<[u8; N]> {
    let array = *p.first_chunk::<N>()?;
    p.advance(N);
    Some(array)
}

pub(super) fn get_block(p: &mut Bytes) -> Option<Bytes> {
    let length = get_u32(p)? as usize;
    (p.len() >= length).then(|| p.split_to(length))
}

pub(super) fn get_text(p: &mut Bytes) -> Option<String> {
    String::from_utf8(get_block(p)?.to_vec()).ok()
}
