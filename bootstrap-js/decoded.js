// Answers of other servers that a handler passes on. What fetched them has decoded the body, and has
// left the headers as they came: to the caller those would be wrong.

import { core, primordials } from "ext:core/mod.js";
import zlib from "node:zlib";

const { ResponsePrototype, getInnerResponse, toInnerResponse } = core.loadExtScript(
  "ext:deno_fetch/23_response.js",
);

const {
  ArrayPrototypeIncludes,
  ArrayPrototypePush,
  FunctionPrototypeCall,
  MathCeil,
  ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor,
  ObjectPrototypeIsPrototypeOf,
  PromisePrototypeThen,
  RegExpPrototypeTest,
  SafeRegExp,
  SafeWeakSet,
  StringPrototypeToLowerCase,
  StringPrototypeTrim,
  TypedArrayPrototypeGetLength,
  TypedArrayPrototypeGetSymbolToStringTag,
  Uint8Array,
  WeakSetPrototypeAdd,
  WeakSetPrototypeHas,
} = primordials;

/** What the packages that have a `fetch` decode. */
const DECODED = new SafeRegExp(
  /^(?:(?:x-)?gzip|deflate|br)(?:\s*,\s*(?:(?:x-)?gzip|deflate|br))*$/i,
);

const DECODERS = [zlib.Gunzip, zlib.Inflate, zlib.InflateRaw, zlib.BrotliDecompress];

/** Streams of bodies that `fetch` has decoded, as far as anybody has asked for them. */
const streams = new SafeWeakSet();

const body = ObjectGetOwnPropertyDescriptor(ResponsePrototype, "body");

// So that `new Response(upstream.body, upstream)` is known for what it is.
ObjectDefineProperty(ResponsePrototype, "body", {
  __proto__: null,
  configurable: true,
  enumerable: body.enumerable,
  get() {
    const stream = FunctionPrototypeCall(body.get, this);
    if (stream !== null && toInnerResponse(this)?.bodyDecoded) WeakSetPrototypeAdd(streams, stream);
    return stream;
  },
});

/** What `blob()` gave of such bodies. */
const blobs = new SafeWeakSet();

/**
 * What `arrayBuffer()` and `bytes()` gave of them, by its traces, the newest in place of the oldest: a
 * `Response` holds a copy of the bytes it is made of.
 */
const traces = [];
const MAX_TRACES = 256;
let nextTrace = 0;

/** Enough to know bytes again: how many they are, and 32 of them. */
function traceOf(bytes) {
  const length = TypedArrayPrototypeGetLength(bytes);
  const step = MathCeil(length / 32) || 1;
  let trace = `${length}`;
  for (let at = 0; at < length; at += step) trace += ` ${bytes[at]}`;
  return trace;
}

// So that `new Response(await upstream.arrayBuffer(), upstream)` is known, too.
remember("blob", (blob) => void WeakSetPrototypeAdd(blobs, blob));
remember("arrayBuffer", (buffer) => keep(new Uint8Array(buffer)));
remember("bytes", keep);

function keep(bytes) {
  const trace = traceOf(bytes);
  if (ArrayPrototypeIncludes(traces, trace)) return;
  traces[nextTrace] = trace;
  nextTrace = (nextTrace + 1) % MAX_TRACES;
}

function remember(name, note) {
  const { value: read, enumerable } = ObjectGetOwnPropertyDescriptor(ResponsePrototype, name);
  const kept = (whole) => {
    note(whole);
    return whole;
  };
  const { [name]: value } = {
    [name]() {
      const whole = FunctionPrototypeCall(read, this);
      const isResponse = ObjectPrototypeIsPrototypeOf(ResponsePrototype, this);
      if (!isResponse || !getInnerResponse(this)?.bodyDecoded) return whole;
      return PromisePrototypeThen(whole, kept);
    },
  };
  ObjectDefineProperty(ResponsePrototype, name, {
    __proto__: null,
    value,
    writable: true,
    enumerable,
    configurable: true,
  });
}

/**
 * Whether the body of a `Response` is not as its `content-encoding` says: `fetch` has decoded it, or
 * it is text, or bytes that cannot be what that says.
 */
export function isDecoded(inner, body, encoding) {
  if (inner.bodyDecoded || typeof body === "string") return true;
  if (typeof body !== "object" || body === null) return false;
  if (TypedArrayPrototypeGetSymbolToStringTag(body) !== "Uint8Array") {
    return WeakSetPrototypeHas(streams, body) || WeakSetPrototypeHas(blobs, inner.body.source);
  }
  switch (StringPrototypeToLowerCase(StringPrototypeTrim(encoding))) {
    case "gzip":
      // A part of a file need not be its beginning.
      return inner.status !== 206 && (body[0] !== 0x1f || body[1] !== 0x8b);
    case "br":
      // Nothing tells what is Brotli but decoding it.
      return ArrayPrototypeIncludes(traces, traceOf(body));
    default:
      return false;
  }
}

/** The same of the `Response` of a package, `node-fetch` or undici. */
export function isDecodedByPackage(response, body, encoding) {
  // One of Node's streams is the decoder itself.
  if (typeof body.pipe === "function") {
    for (let i = 0; i < DECODERS.length; i++) {
      if (ObjectPrototypeIsPrototypeOf(DECODERS[i].prototype, body)) return true;
    }
    return false;
  }
  return typeof body.getReader === "function" && !!response.url &&
    RegExpPrototypeTest(DECODED, encoding);
}

/** The headers without what says how the body came. */
export function asDecoded(headers) {
  const left = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i];
    if (name === "content-encoding" || name === "content-length") continue;
    ArrayPrototypePush(left, name, headers[i + 1]);
  }
  return left;
}
