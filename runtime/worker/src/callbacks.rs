//! The functions JavaScript gets: what they take apart, [`Host`] decides upon.
//!
//! Arguments come from hostile code: whatever does not fit becomes a harmless default, and none of
//! these functions throws.

#![allow(clippy::needless_pass_by_value, reason = "V8's signature of callbacks")]

use std::borrow::Cow;
use std::rc::Rc;

use cloudserve_protocol::call::LogLevel;
use cloudserve_protocol::headers::{HeaderBlock, HeaderBlockBuilder};
use cloudserve_protocol::wire::SWITCHING_PROTOCOLS;
use deno_core::{JsRuntime, v8};

use crate::given::Given;
use crate::host::{Host, NO_STATUS};
use crate::names::{Names, latin1, origin_of};
use crate::web_socket;

fn host_of(scope: &mut v8::PinScope<'_, '_>) -> Rc<Host> {
    scope.get_slot::<Rc<Host>>().expect("set when the bridge was taken").clone()
}

fn number(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> u32 {
    match v8::Local::<v8::Uint32>::try_from(value) {
        Ok(number) => number.value(),
        Err(_) => value.uint32_value(scope).unwrap_or(0),
    }
}

/// Status outside of what HTTP answers have becomes 500.
fn status_of(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> u16 {
    let is_one = |status: &u16| *status == SWITCHING_PROTOCOLS || (200..600).contains(status);
    u16::try_from(number(scope, value)).ok().filter(is_one).unwrap_or(NO_STATUS)
}

/// Names and values of headers up to this length are read without a buffer of their own.
const SHORT_BYTES: usize = 256;

type Room = [u8; SHORT_BYTES];

/// `[name, value, name, value, ...]`, or the number of a list that the host has.
fn headers_of(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> HeaderBlock {
    if let Ok(number) = v8::Local::<v8::Uint32>::try_from(value) {
        return host_of(scope).common_headers(number.value());
    }
    let mut block = HeaderBlockBuilder::new();
    let Ok(array) = v8::Local::<v8::Array>::try_from(value) else { return block.finish() };
    let (mut name_room, mut value_room) = ([0; SHORT_BYTES], [0; SHORT_BYTES]);
    for pair in 0..array.length() / 2 {
        let Some(name) = array.get_index(scope, 2 * pair) else { break };
        let name = name_of(scope, name, &mut name_room);
        let Some(value) = array.get_index(scope, 2 * pair + 1) else { break };
        let value = value_of(scope, value, &mut value_room);
        block.push(&name, &value);
    }
    block.finish()
}

/// A name, as UTF-8.
fn name_of<'r>(
    scope: &v8::PinScope<'_, '_>,
    name: v8::Local<'_, v8::Value>,
    room: &'r mut Room,
) -> Cow<'r, [u8]> {
    match short_bytes(scope, name, room) {
        Some(bytes) if bytes.is_ascii() => Cow::Borrowed(bytes),
        _ => Cow::Owned(name.to_rust_string_lossy(scope).into_bytes()),
    }
}

/// A value: one byte per character, as the request's were shown.
fn value_of<'r>(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
    room: &'r mut Room,
) -> Cow<'r, [u8]> {
    match short_bytes(scope, value, room) {
        Some(bytes) => Cow::Borrowed(bytes),
        None => Cow::Owned(header_bytes(&value.to_rust_string_lossy(scope))),
    }
}

/// The characters of a short string, if V8 keeps them as a byte each.
fn short_bytes<'r>(
    scope: &v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
    room: &'r mut Room,
) -> Option<&'r [u8]> {
    let text = v8::Local::<v8::String>::try_from(value).ok().filter(|text| text.is_onebyte())?;
    let bytes = room.get_mut(..text.length())?;
    text.write_one_byte_v2(scope, 0, bytes, v8::WriteFlags::empty());
    Some(bytes)
}

/// One byte per character; text beyond Latin-1 goes out as UTF-8.
fn header_bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)))
        .collect::<Result<_, _>>()
        .unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// The headers of a request, as JavaScript was handed them: a character for each byte.
fn block_of(scope: &v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> HeaderBlock {
    let Ok(text) = v8::Local::<v8::String>::try_from(value) else { return HeaderBlock::default() };
    let mut bytes = vec![0_u8; text.length()];
    text.write_one_byte_v2(scope, 0, &mut bytes, v8::WriteFlags::empty());
    HeaderBlock::parse(bytes.into()).unwrap_or_default()
}

/// `[name, value, name, value, ...]` of a request.
pub(crate) fn headers(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    let block = block_of(scope, args.get(0));
    let names = scope.get_slot::<Rc<Names>>().expect("set when the bridge was taken").clone();
    result.set(names.list(scope, &block));
}

/// The beginning of a request's URL.
pub(crate) fn origin(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    let origin = origin_of(&block_of(scope, args.get(0)));
    result.set(latin1(scope, &origin, v8::NewStringType::Normal));
}

pub(crate) fn answer(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let status = status_of(scope, args.get(1));
    let headers = headers_of(scope, args.get(2));
    let body = Given::of(scope, args.get(3));
    host_of(scope).answer(scope, call, status, &headers, &body, true);
}

pub(crate) fn head(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let status = status_of(scope, args.get(1));
    let headers = headers_of(scope, args.get(2));
    host_of(scope).answer(scope, call, status, &headers, &Given::Nothing, false);
}

pub(crate) fn chunk(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let bytes = Given::of(scope, args.get(1));
    let end = args.get(2).boolean_value(scope);
    host_of(scope).chunk(scope, call, &bytes, end);
}

pub(crate) fn trailers(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let trailers = headers_of(scope, args.get(1));
    host_of(scope).trailers(call, trailers);
}

/// A pipe with the engine's WebSocket at one end: `[the WebSocket's resource, the other end's]`.
pub(crate) fn open_web_socket(
    scope: &mut v8::PinScope<'_, '_>,
    _args: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    let state = JsRuntime::op_state_from(scope);
    // Without descriptors there is none; the caller sees undefined.
    let Ok(ends) = web_socket::open(&mut state.borrow_mut()) else { return };
    let ends = ends.map(|end| v8::Integer::new_from_unsigned(scope, end).into());
    result.set(v8::Array::new_with_elements(scope, &ends).into());
}

pub(crate) fn credit(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let bytes = number(scope, args.get(1));
    host_of(scope).credit(call, bytes);
}

/// All of a request's body that is still to come goes into an array, from there on.
pub(crate) fn fill(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let Ok(whole) = v8::Local::<v8::Uint8Array>::try_from(args.get(1)) else { return };
    let Some(buffer) = whole.buffer(scope) else { return };
    let at = number(scope, args.get(2)) as usize;
    host_of(scope).fill(call, buffer.get_backing_store(), at);
}

/// How much of that array is full; nothing more comes into it.
pub(crate) fn filled(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let at = host_of(scope).filled(call).and_then(|at| u32::try_from(at).ok()).unwrap_or(0);
    result.set(v8::Integer::new_from_unsigned(scope, at).into());
}

pub(crate) fn log(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let level = match number(scope, args.get(0)) {
        0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        _ => LogLevel::Error,
    };
    let host = host_of(scope);
    if host.log_is_cut() {
        return;
    }
    let mut message = args.get(1).to_rust_string_lossy(scope);
    message.truncate(message.trim_end_matches('\n').len());
    host.log(level, message);
}

pub(crate) fn done(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    host_of(scope).done(call);
}

pub(crate) fn failed(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let call = number(scope, args.get(0));
    let message = args.get(1).to_rust_string_lossy(scope);
    let stack = args.get(2).to_rust_string_lossy(scope);
    host_of(scope).failed(call, message, stack);
}
