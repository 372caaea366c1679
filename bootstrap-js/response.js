// What a handler returned, as status, headers and body.

import { core } from "ext:core/mod.js";

const { toInnerResponse } = core.loadExtScript("ext:deno_fetch/23_response.js");

const { Array, ArrayBuffer, JSON, Number, Object, Response, Set, String, Symbol, TypeError, Uint8Array, atob } =
  globalThis;
const stringify = JSON.stringify;
const isView = ArrayBuffer.isView;

const RESULT_KEYS = new Set([
  "statusCode",
  "status",
  "statusText",
  "headers",
  "multiValueHeaders",
  "cookies",
  "body",
  "isBase64Encoded",
]);

/** `{status, headers: [name, value, ...], body: null | string | Uint8Array | stream}` */
export function normalise(value) {
  if (value === undefined) return { status: 204, headers: [], body: null };
  if (value instanceof Response) return fromResponse(value);
  if (typeof value === "string") return { status: 200, headers: TEXT, body: value };
  const bytes = asBytes(value);
  if (bytes !== null) return { status: 200, headers: BYTES, body: bytes };
  if (isStream(value)) return { status: 200, headers: BYTES, body: value };
  if (isHttpResult(value)) return fromResult(value);
  return { status: 200, headers: JSON_HEADERS, body: json(value) };
}

const TEXT = ["content-type", "text/plain; charset=utf-8"];
const BYTES = ["content-type", "application/octet-stream"];
const JSON_HEADERS = ["content-type", "application/json"];

function json(value) {
  const text = stringify(value);
  if (text === undefined) {
    throw new TypeError(`the handler returned a ${typeof value}, which is not a JSON value`);
  }
  return text;
}

function asBytes(value) {
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return null;
}

function isStream(value) {
  return typeof value === "object" && value !== null &&
    (typeof value.getReader === "function" || typeof value[Symbol.asyncIterator] === "function");
}

function fromResponse(response) {
  const inner = toInnerResponse(response);
  const headers = [];
  for (const [name, value] of inner.headerList) headers.push(name.toLowerCase(), value);
  return { status: inner.status, headers, body: bodyOf(response, inner.body) };
}

// A body given as a string or bytes is still that, unless something has read or streamed it.
function bodyOf(response, inner) {
  if (inner === null || inner === undefined) return null;
  const held = inner.streamOrStatic;
  if (held.body !== undefined && !held.consumed) {
    held.consumed = true;
    return held.body;
  }
  if (response.bodyUsed) throw new TypeError("the body of the returned Response was read already");
  return response.body;
}

function isStatus(value) {
  return Number.isInteger(value) && value >= 200 && value <= 599;
}

// `statusCode` is what platforms call it, so any object with a valid one is an HTTP result.
// `status` is a common word: it counts only when nothing else in the object says data.
function isHttpResult(value) {
  if (typeof value !== "object" || value === null) return false;
  if (value.statusCode !== undefined) return isStatus(Number(value.statusCode));
  return isStatus(value.status) && Object.keys(value).every((key) => RESULT_KEYS.has(key));
}

function fromResult(result) {
  const headers = [];
  const add = (name, value) => {
    if (value !== undefined && value !== null) headers.push(String(name).toLowerCase(), String(value));
  };
  const from = result.headers ?? {};
  if (typeof from.forEach === "function" && typeof from.get === "function") {
    from.forEach((value, name) => add(name, value));
  } else {
    for (const [name, value] of Object.entries(from)) {
      for (const one of Array.isArray(value) ? value : [value]) add(name, one);
    }
  }
  for (const [name, values] of Object.entries(result.multiValueHeaders ?? {})) {
    for (const value of values ?? []) add(name, value);
  }
  for (const cookie of result.cookies ?? []) add("set-cookie", cookie);
  const [body, type] = resultBody(result);
  if (body !== null && !headers.some((name, i) => i % 2 === 0 && name === "content-type")) {
    headers.push("content-type", type);
  }
  return { status: Number(result.statusCode ?? result.status), headers, body };
}

function resultBody(result) {
  const { body } = result;
  if (body === undefined || body === null) return [null, ""];
  if (typeof body === "string") {
    if (!result.isBase64Encoded) return [body, TEXT[1]];
    return [Uint8Array.from(atob(body), (c) => c.charCodeAt(0)), BYTES[1]];
  }
  const bytes = asBytes(body);
  if (bytes !== null) return [bytes, BYTES[1]];
  if (isStream(body)) return [body, BYTES[1]];
  return [json(body), JSON_HEADERS[1]];
}
