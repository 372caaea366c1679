//! Bodies that JavaScript hands over. They are copied once: to where they leave from.

use bytes::BytesMut;
use deno_core::v8;

/// A body, or a piece of one.
pub(crate) enum Given<'s> {
    Nothing,
    /// Text, and how many bytes it has as UTF-8.
    Text(v8::Local<'s, v8::String>, usize),
    Bytes(v8::Local<'s, v8::ArrayBufferView>),
}

impl<'s> Given<'s> {
    /// What is neither text nor bytes is nothing.
    pub(crate) fn of(isolate: &v8::Isolate, value: v8::Local<'s, v8::Value>) -> Self {
        if let Ok(text) = v8::Local::<v8::String>::try_from(value) {
            return Self::Text(text, text.utf8_length(isolate));
        }
        v8::Local::<v8::ArrayBufferView>::try_from(value).map_or(Self::Nothing, Self::Bytes)
    }

    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Text(_, length) => *length,
            Self::Bytes(view) => view.byte_length(),
        }
    }

    /// Appends all of it: exactly [`Given::len`] bytes.
    pub(crate) fn append_to(&self, isolate: &v8::Isolate, out: &mut BytesMut) {
        let (start, length) = (out.len(), self.len());
        out.reserve(length);
        let room = &mut out.spare_capacity_mut()[..length];
        let written = match self {
            Self::Nothing => 0,
            Self::Text(text, _) => {
                let flags = v8::WriteFlags::kReplaceInvalidUtf8;
                text.write_utf8_uninit_v2(isolate, room, flags, None)
            }
            Self::Bytes(view) => view.copy_contents_uninit(room),
        };
        // SAFETY: V8 has written so many bytes of the room, which has no more.
        unsafe { out.set_len(start + written.min(length)) };
        // Nothing has run since its length was asked for. What was announced is sent in any case.
        out.resize(start + length, 0);
    }
}
