// What a handler returned, as status, headers and body.

import { core, primordials } from "ext:core/mod.js";
import { asDecoded, isDecoded, isDecodedByPackage } from "ext:cloudserve/decoded.js";

const {
  getInnerResponse,
  ResponsePrototype,
  SERVE_FAST_HEADER_CONTENT_TYPE,
  serveFastBodyKey,
  serveFastConsumedKey,
  serveFastContentTypeKey,
  serveFastHeaderKindKey,
  serveFastStatusKey,
  toInnerResponse,
} = core.loadExtScript("ext:deno_fetch/23_response.js");
const { forgivingBase64Decode } = core.loadExtScript("ext:deno_web/00_infra.js");
const { extractBody } = core.loadExtScript("ext:deno_fetch/22_body.js");

const {
  ArrayBufferIsView,
  ArrayBufferPrototype,
  ArrayIsArray,
  ArrayPrototypeIndexOf,
  ArrayPrototypePush,
  FunctionPrototypeCall,
  JSONStringify,
  Number,
  NumberIsInteger,
  ObjectHasOwn,
  ObjectKeys,
  ObjectPrototypeIsPrototypeOf,
  RegExpPrototypeTest,
  SafeRegExp,
  String,
  StringPrototypeToLowerCase,
  SymbolAsyncIterator,
  SymbolIterator,
  TypeError,
  TypedArrayPrototypeGetSymbolToStringTag,
  Uint8Array,
} = primordials;
const { Blob, FormData, Headers, URLSearchParams } = globalThis;
const forEachHeader = Headers.prototype.forEach;

const TEXT = ["content-type", "text/plain; charset=utf-8"];
const BYTES = ["content-type", "application/octet-stream"];
const JSON_TEXT = ["content-type", "application/json"];
/** What a `Response` of a text has. */
const RESPONSE_TEXT = ["content-type", "text/plain;charset=UTF-8"];

/** Lists that the host knows by their place here: `COMMON_HEADERS` of `runtime/worker/src/host.rs`. */
const COMMON_HEADERS = [JSON_TEXT, TEXT, RESPONSE_TEXT, BYTES];

const USED = "the body of the returned Response was read already";

const RESULT_KEYS = {
  __proto__: null,
  statusCode: true,
  status: true,
  statusText: true,
  headers: true,
  multiValueHeaders: true,
  cookies: true,
  body: true,
  isBase64Encoded: true,
};

/** What `main` may return besides a `body`, and need not say a status. */
const BESIDE_BODY = {
  __proto__: null,
  headers: true,
  multiValueHeaders: true,
  cookies: true,
  isBase64Encoded: true,
};

const HEADER_NAME = new SafeRegExp(/^[!#$%&'*+\-.^_`|~0-9a-z]+$/);
// What HTTP has no way to carry in a value: control characters but tab.
// deno-lint-ignore no-control-regex
const BAD_IN_VALUE = new SafeRegExp(/[\x00-\x08\x0a-\x1f\x7f]/);

/**
 * `{status, headers: [name, value, ...], body: null | string | Uint8Array | stream}`; of an answer
 * of 101 the `webSocket`, if it has one of Workers.
 */
export function normalise(value) {
  if (value === undefined) return { status: 204, headers: [], body: null };
  if (typeof value === "string") return { status: 200, headers: TEXT, body: value };
  if (typeof value !== "object" || value === null) return jsonAnswer(value);
  if (ObjectPrototypeIsPrototypeOf(ResponsePrototype, value)) return fromResponse(value);
  const bytes = asBytes(value);
  if (bytes !== null) return { status: 200, headers: BYTES, body: bytes };
  if (isStream(value)) return { status: 200, headers: BYTES, body: value };
  if (isResponseOfPackage(value)) return fromPackage(value);
  return isHttpResult(value) ? fromResult(value) : jsonAnswer(value);
}

/** What the host takes for a list of headers: the number of one that it knows, or the list. */
export function headersForHost(headers) {
  const place = ArrayPrototypeIndexOf(COMMON_HEADERS, headers);
  return place < 0 ? headers : place;
}

/** A piece of a streamed body as bytes or text. */
export function pieceOf(value) {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null) return asBytes(value) ?? json(value);
  return json(value);
}

function jsonAnswer(value) {
  const text = json(value);
  if (text === "{}") {
    // What has nothing to show as JSON may be a body.
    const made = extracted(value);
    if (made !== null) {
      return { status: 200, headers: ["content-type", made[1]], body: made[0] };
    }
  }
  return { status: 200, headers: JSON_TEXT, body: text };
}

function json(value) {
  const text = JSONStringify(value);
  if (text === undefined) {
    throw new TypeError(`the handler returned a ${typeof value}, which is not a JSON value`);
  }
  return text;
}

function asBytes(value) {
  if (ArrayBufferIsView(value)) {
    if (TypedArrayPrototypeGetSymbolToStringTag(value) === "Uint8Array") return value;
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  if (ObjectPrototypeIsPrototypeOf(ArrayBufferPrototype, value)) return new Uint8Array(value);
  return null;
}

function isStream(value) {
  return typeof value.getReader === "function" || typeof value[SymbolAsyncIterator] === "function";
}

function fromResponse(response) {
  const inner = getInnerResponse(response);
  if (inner === undefined) return fromAlike(response);
  if (inner.body === null && response[serveFastStatusKey] === 200) return fromText(response);
  const list = toInnerResponse(response).headerList;
  let headers = [];
  let encoding = null;
  for (let i = 0; i < list.length; i++) {
    const name = StringPrototypeToLowerCase(list[i][0]);
    const value = list[i][1];
    if (name === "content-encoding") encoding = encoding === null ? value : `${encoding},${value}`;
    ArrayPrototypePush(headers, name, value);
  }
  const body = responseBody(response, inner.body);
  if (encoding !== null && isDecoded(inner, body, encoding)) headers = asDecoded(headers);
  if (inner.status === 101) return { status: 101, headers, body, webSocket: response.webSocket };
  return { status: inner.status, headers, body };
}

/**
 * Of `new Response(text)` and `Response.json(value)` nobody has asked anything of. The engine's own server
 * takes them so: neither a list of headers nor a body is made.
 */
function fromText(response) {
  if (response[serveFastConsumedKey]) throw new TypeError(USED);
  response[serveFastConsumedKey] = true;
  const isJson = response[serveFastHeaderKindKey] === SERVE_FAST_HEADER_CONTENT_TYPE &&
    response[serveFastContentTypeKey] === JSON_TEXT[1];
  const headers = isJson ? JSON_TEXT : RESPONSE_TEXT;
  return { status: 200, headers, body: response[serveFastBodyKey] };
}

/** What has a Response's prototype and is none: servers make them to save the making of one. */
function fromAlike(response) {
  const headers = [];
  FunctionPrototypeCall(forEachHeader, response.headers, (value, name) => {
    ArrayPrototypePush(headers, name, value);
  });
  return { status: response.status, headers, body: response.body };
}

/** Packages that have a `fetch` have a `Response` of their own: `node-fetch`, undici. */
function isResponseOfPackage(value) {
  return typeof value.text === "function" && typeof value.headers?.get === "function" &&
    "body" in value && isStatus(value.status);
}

function fromPackage(response) {
  const { status, headers: from, bodyUsed } = response;
  if (bodyUsed) throw new TypeError(USED);
  let headers = [];
  // `node-fetch` joins cookies, but for those who ask so.
  addAll(headers, typeof from.raw === "function" ? from.raw() : from);
  const { 0: body } = resultBody(response);
  const encoding = from.get("content-encoding");
  if (body !== null && encoding && isDecodedByPackage(response, body, encoding)) {
    headers = asDecoded(headers);
  }
  return { status, headers, body };
}

/** A body given as a string or bytes is still that, unless something has streamed it. */
function responseBody(response, inner) {
  if (inner === null || inner === undefined) return null;
  if (inner.unusable()) {
    throw new TypeError(USED);
  }
  const held = inner.streamOrStatic;
  if (held.consumed !== false) return response.body;
  held.consumed = true;
  return held.body;
}

function isStatus(value) {
  return NumberIsInteger(value) && value >= 200 && value <= 599;
}

/**
 * `statusCode` is what platforms call it, so any object with a valid one is an HTTP result.
 * `status` is a common word: it counts only when nothing else in the object says data.
 */
function isHttpResult(value) {
  if (value.statusCode !== undefined) return isStatus(Number(value.statusCode));
  if (!isStatus(value.status)) return false;
  const keys = ObjectKeys(value);
  for (let i = 0; i < keys.length; i++) {
    if (RESULT_KEYS[keys[i]] === undefined) return false;
  }
  return true;
}

/**
 * What `main` has returned. On OpenWhisk and DigitalOcean `{ body }` and `{ headers, body }` are HTTP
 * results, of status 204 where there is nothing in the body; of other forms they are data.
 */
export function withStatus(value) {
  if (typeof value !== "object" || value === null || !ObjectHasOwn(value, "body")) return value;
  const { body, headers } = value;
  if (headers !== undefined && (typeof headers !== "object" || ArrayIsArray(headers))) return value;
  const keys = ObjectKeys(value);
  for (let i = 0; i < keys.length; i++) {
    if (keys[i] !== "body" && BESIDE_BODY[keys[i]] === undefined) return value;
  }
  const isEmpty = body === undefined || body === null || body === "";
  return { ...value, statusCode: isEmpty ? 204 : 200 };
}

/** Status and headers of `{statusCode|status, headers, multiValueHeaders, cookies}`. */
export function headOf(result) {
  const headers = [];
  addAll(headers, result.headers);
  if (result.multiValueHeaders) addMissing(headers, result.multiValueHeaders);
  addEach(headers, "set-cookie", result.cookies);
  const status = Number(result.statusCode ?? result.status ?? 200);
  if (!isStatus(status)) {
    throw new TypeError("the handler set a status that no answer has");
  }
  return { status, headers };
}

function fromResult(result) {
  const { status, headers } = headOf(result);
  const { 0: body, 1: type } = resultBody(result);
  if (body !== null && !hasContentType(headers)) ArrayPrototypePush(headers, "content-type", type);
  return { status, headers, body };
}

function hasContentType(headers) {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === "content-type") return true;
  }
  return false;
}

/** Adds the headers of an object, a `Headers`, a `Map` or a list of pairs. */
function addAll(headers, from) {
  if (typeof from !== "object" || from === null) return;
  if (typeof from[SymbolIterator] === "function") {
    for (const pair of from) addEach(headers, pair[0], pair[1]);
    return;
  }
  const names = ObjectKeys(from);
  for (let i = 0; i < names.length; i++) addEach(headers, names[i], from[names[i]]);
}

/** As `addAll`, but what is in both is sent once. */
function addMissing(headers, from) {
  const more = [];
  addAll(more, from);
  const { length } = headers;
  for (let i = 0; i < more.length; i += 2) {
    if (!hasPair(headers, length, more[i], more[i + 1])) {
      ArrayPrototypePush(headers, more[i], more[i + 1]);
    }
  }
}

function hasPair(headers, length, name, value) {
  for (let i = 0; i < length; i += 2) {
    if (headers[i] === name && headers[i + 1] === value) return true;
  }
  return false;
}

function addEach(headers, name, values) {
  if (!ArrayIsArray(values)) return add(headers, name, values);
  for (let i = 0; i < values.length; i++) add(headers, name, values[i]);
}

function add(headers, name, value) {
  if (value === undefined || value === null) return;
  const lower = StringPrototypeToLowerCase(String(name));
  const text = String(value);
  if (!RegExpPrototypeTest(HEADER_NAME, lower) || RegExpPrototypeTest(BAD_IN_VALUE, text)) {
    throw new TypeError(`the handler returned an invalid header ${json(String(name))}`);
  }
  ArrayPrototypePush(headers, lower, text);
}

/** `[body, content type where the handler names none]` */
function resultBody({ body, isBase64Encoded }) {
  if (body === undefined || body === null) return [null, ""];
  if (typeof body === "string") {
    return isBase64Encoded ? [forgivingBase64Decode(body), BYTES[1]] : [body, TEXT[1]];
  }
  if (typeof body !== "object") return [json(body), JSON_TEXT[1]];
  const bytes = asBytes(body);
  if (bytes !== null) return [bytes, BYTES[1]];
  if (isStream(body)) return [body, BYTES[1]];
  return extracted(body) ?? [json(body), JSON_TEXT[1]];
}

/** The same of what a `Response` may be made of besides; null if it is something else. */
function extracted(value) {
  if (
    !ObjectPrototypeIsPrototypeOf(Blob.prototype, value) &&
    !ObjectPrototypeIsPrototypeOf(FormData.prototype, value) &&
    !ObjectPrototypeIsPrototypeOf(URLSearchParams.prototype, value)
  ) return null;
  const { body, contentType } = extractBody(value);
  return [body.stream, contentType ?? BYTES[1]];
}
