// Answers of other servers that a handler passes on. What fetched them has decoded the body, and has
// left the headers as they came: to the caller those would be wrong.

import { core, primordials } from "ext:core/mod.js";
import zlib from "node:zlib";

const { ResponsePrototype, toInnerResponse } = core.loadExtScript("ext:deno_fetch/23_response.js");

const {
  ArrayPrototypePush,
  FunctionPrototypeCall,
  ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor,
  ObjectPrototypeIsPrototypeOf,
  RegExpPrototypeTest,
  SafeRegExp,
  SafeWeakSet,
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

/**
 * Whether the body of a `Response` is not as its `content-encoding` says: `fetch` has decoded it, or
 * it is text.
 */
export function isDecoded(inner, body) {
  if (inner.bodyDecoded || typeof body === "string") return true;
  return typeof body === "object" && body !== null && WeakSetPrototypeHas(streams, body);
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
