// The request in the shapes handlers expect: a `Request`, or the superset `event`.

import { core, primordials } from "ext:core/mod.js";
import { offerUpgrade } from "ext:cloudserve/web_socket.js";

const { fromInnerRequest } = core.loadExtScript("ext:deno_fetch/23_request.js");
const { forgivingBase64Encode } = core.loadExtScript("ext:deno_web/00_infra.js");
const { InnerBody } = core.loadExtScript("ext:deno_fetch/22_body.js");

const {
  ArrayPrototypePush,
  FunctionPrototypeCall,
  JSONParse,
  ObjectDefineProperty,
  ObjectHasOwn,
  ObjectKeys,
  RegExpPrototypeTest,
  SafeRegExp,
  StringPrototypeCharCodeAt,
  StringPrototypeIndexOf,
  StringPrototypeLastIndexOf,
  StringPrototypeSlice,
  StringPrototypeSplit,
  StringPrototypeTrim,
  TypedArrayPrototypeGetByteLength,
  Uint8Array,
  decodeURIComponent,
} = primordials;
const { ReadableStream, TextDecoder, URLSearchParams } = globalThis;
const decode = TextDecoder.prototype.decode;
const forEachParam = URLSearchParams.prototype.forEach;
const strictUtf8 = new TextDecoder("utf-8", { fatal: true });

const TEXT_TYPE = new SafeRegExp(
  /^(text\/|application\/([\w.+-]*\+)?(json|xml|javascript|x-www-form-urlencoded|graphql)\b)/i,
);
const JSON_TYPE = new SafeRegExp(/^application\/([\w.+-]*\+)?json\b/i);
const FORM_TYPE = new SafeRegExp(/^application\/x-www-form-urlencoded\b/i);

const SLASH = 47;

/** In place of a stream. */
const NOT_MADE = {};

/** The headers of the request before, and an object of the same names once two have had them. */
let lastFlat = [];
let lastObject = null;

/** Headers as one object; repeated names are joined with ", ", cookies with "; ". */
export function headersObject(flat) {
  const isSame = hasNamesOf(flat, lastFlat);
  if (isSame && lastObject !== null) {
    // A copy has all properties at once; to add as many, V8 takes twice as long.
    const headers = { ...lastObject };
    for (let i = 0; i < flat.length; i += 2) headers[flat[i]] = flat[i + 1];
    return headers;
  }
  const headers = {};
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i];
    const value = flat[i + 1];
    if (!(name in headers)) headers[name] = value;
    else addHeader(headers, name, value);
  }
  lastFlat = flat;
  lastObject = isSame && ObjectKeys(headers).length * 2 === flat.length ? { ...headers } : null;
  return headers;
}

function hasNamesOf(flat, other) {
  if (flat.length !== other.length) return false;
  for (let i = 0; i < flat.length; i += 2) {
    if (flat[i] !== other[i]) return false;
  }
  return true;
}

/** A header whose name is there already, as it is or as a property of all objects. */
function addHeader(headers, name, value) {
  const joined = ObjectHasOwn(headers, name)
    ? headers[name] + (name === "cookie" ? "; " : ", ") + value
    : value;
  ObjectDefineProperty(headers, name, {
    __proto__: null,
    value: joined,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}

/** `[path, query]` */
export function splitTarget(target) {
  const at = StringPrototypeIndexOf(target, "?");
  return at < 0
    ? [target, ""]
    : [StringPrototypeSlice(target, 0, at), StringPrototypeSlice(target, at + 1)];
}

/** `[query, joined]`: repeated names as an array, and joined by commas as AWS does. */
export function queryObjects(rawQuery) {
  if (rawQuery === "") return [{}, {}];
  const query = { __proto__: null };
  const joined = { __proto__: null };
  FunctionPrototypeCall(forEachParam, new URLSearchParams(rawQuery), (value, name) => {
    const seen = query[name];
    if (seen === undefined) query[name] = value;
    else if (typeof seen === "string") query[name] = [seen, value];
    else ArrayPrototypePush(seen, value);
    joined[name] = joined[name] === undefined ? value : `${joined[name]},${value}`;
  });
  // A parameter may be called `__proto__`; spread defines it as a property like any other.
  return [{ ...query }, { ...joined }];
}

/** Whether bytes of this type are text. */
export function isText(contentType) {
  return RegExpPrototypeTest(TEXT_TYPE, contentType);
}

/** `[text, isBase64Encoded]`: as it is where the bytes are text, else base64. */
function rawBodyOf(bytes, contentType) {
  if (contentType === "" || isText(contentType)) {
    try {
      return [FunctionPrototypeCall(decode, strictUtf8, bytes), false];
    } catch {
      // Not UTF-8: it has to arrive whole, whatever its type says.
    }
  }
  return [forgivingBase64Encode(bytes), true];
}

/** `[body, isBase64Encoded]` as AWS has them: null where there is no body. */
export function encodedBody(bytes, contentType) {
  const isEmpty = bytes === null || TypedArrayPrototypeGetByteLength(bytes) === 0;
  return isEmpty ? [null, false] : rawBodyOf(bytes, contentType);
}

/**
 * The address the request came from, as far as the gateway knows. The last one it passes on is that
 * of its own peer. There are others only where that is a trusted proxy: it has added the one before,
 * and what stands there first is what callers say of themselves.
 */
export function peerOf({ headers }) {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === "x-forwarded-for") return callerAmong(headers[i + 1]);
  }
  return "";
}

function callerAmong(passed) {
  const last = StringPrototypeLastIndexOf(passed, ",");
  if (last < 0) return passed;
  const before = StringPrototypeLastIndexOf(passed, ",", last - 1);
  return StringPrototypeTrim(StringPrototypeSlice(passed, before + 1, last)) ||
    StringPrototypeTrim(StringPrototypeSlice(passed, last + 1));
}

/** JSON and forms as objects, anything else as it is. */
export function parsedBody(raw, contentType) {
  if (RegExpPrototypeTest(JSON_TYPE, contentType)) {
    try {
      return JSONParse(raw);
    } catch {
      return raw;
    }
  }
  return RegExpPrototypeTest(FORM_TYPE, contentType) ? queryObjects(raw)[0] : raw;
}

/** A parsed body is still the text it was to code that parses it once more, as AWS's samples do. */
function withText(body, text) {
  if (typeof body === "object" && body !== null && !ObjectHasOwn(body, "toString")) {
    ObjectDefineProperty(body, "toString", {
      __proto__: null,
      value: () => text,
      configurable: true,
      writable: true,
    });
  }
  return body;
}

function decodedPath(rawPath) {
  if (StringPrototypeIndexOf(rawPath, "%") < 0) return rawPath;
  try {
    return decodeURIComponent(rawPath);
  } catch {
    return rawPath;
  }
}

function splitCookies(header) {
  if (header === undefined) return [];
  const cookies = StringPrototypeSplit(header, ";");
  for (let i = 0; i < cookies.length; i++) cookies[i] = StringPrototypeTrim(cookies[i]);
  return cookies;
}

/** The `event` of `(event, context)` handlers: the union of what platforms call by these names. */
export function makeEvent(request, bytes, eventFormat, startedMs) {
  const { method, target } = request;
  const isLambda = eventFormat === "lambda";
  const headers = headersObject(request.headers);
  const { 0: rawPath, 1: rawQueryString } = splitTarget(target);
  const { 0: query, 1: queryStringParameters } = queryObjects(rawQueryString);
  const path = decodedPath(rawPath);
  const contentType = headers["content-type"] ?? "";
  const { 0: encoded, 1: isBase64Encoded } = encodedBody(bytes, contentType);
  const rawBody = encoded ?? "";
  let body = encoded;
  if (!isLambda) {
    if (encoded === null) body = undefined;
    else if (!isBase64Encoded) body = withText(parsedBody(rawBody, contentType), rawBody);
  }
  return {
    version: "2.0",
    routeKey: "$default",
    method,
    httpMethod: method,
    path,
    rawPath,
    rawQueryString,
    query,
    queryStringParameters,
    headers,
    // AWS leaves them out where there are none, and its adapters count on that.
    cookies: isLambda && headers.cookie === undefined ? undefined : splitCookies(headers.cookie),
    body,
    rawBody,
    isBase64Encoded,
    requestContext: {
      requestId: request.executionId,
      stage: "$default",
      domainName: headers.host ?? "",
      timeEpoch: startedMs,
      http: {
        method,
        path,
        protocol: "HTTP/1.1",
        sourceIp: peerOf(request),
        userAgent: headers["user-agent"] ?? "",
      },
    },
  };
}

/** The `Request` of fetch-style handlers. URL, headers and body are made when they are read. */
export function makeRequest(call) {
  const { request } = call;
  const hasBody = request.method !== "GET" && request.method !== "HEAD";
  const inner = new InnerRequest(request, hasBody ? bodyOf(call) : null);
  if (call.isUpgrade) offerUpgrade(call, inner);
  return fromInnerRequest(inner, "immutable");
}

/**
 * What the engine's `Request` asks. Its `newInnerRequest` makes the same, with getters of its own in
 * each object, of which V8 makes a dictionary: that took longer than all else that is done for a call.
 */
class InnerRequest {
  #request;
  #headerList = null;
  #url = null;

  constructor(request, body) {
    this.#request = request;
    this.method = request.method;
    this.body = body;
    this.redirectMode = "follow";
    this.redirectCount = 0;
    this.clientRid = null;
    this.blobUrlEntry = null;
  }

  get headerList() {
    return this.#headerList ??= headerPairs(this.#request.headers);
  }

  url() {
    return this.#url ??= urlOf(this.#request);
  }
}

function urlOf({ origin, target }) {
  const slash = StringPrototypeCharCodeAt(target, 0) === SLASH ? "" : "/";
  return origin + slash + target;
}

function headerPairs(flat) {
  const pairs = [];
  for (let i = 0; i < flat.length; i += 2) ArrayPrototypePush(pairs, [flat[i], flat[i + 1]]);
  return pairs;
}

function bodyOf(call) {
  if (!call.isWhole) return new LateBody(call);
  const bytes = call.takeWhole();
  if (bytes === null) return null;
  const body = new InnerBody({ body: bytes, consumed: false });
  body.length = TypedArrayPrototypeGetByteLength(bytes);
  return body;
}

/** A body whose end is still to come. A stream is made of it when somebody asks for one, or for a part. */
class LateBody extends InnerBody {
  // A `Request` has it among its symbols.
  #call;

  constructor(call) {
    super(NOT_MADE);
    this.#call = call;
  }

  get streamOrStatic() {
    if (this.held === NOT_MADE) this.held = streamOf(this.#call);
    return this.held;
  }

  set streamOrStatic(held) {
    this.held = held;
  }

  unusable() {
    return this.held !== NOT_MADE && super.unusable();
  }

  consumed() {
    return this.held !== NOT_MADE && super.consumed();
  }

  /** All of it, as bytes. */
  consume() {
    if (this.held !== NOT_MADE) return super.consume();
    this.held = { body: null, consumed: true };
    return wholeOf(this.#call);
  }
}

async function wholeOf(call) {
  return await call.wholeBody() ?? new Uint8Array(0);
}

function streamOf(call) {
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const piece = await call.nextPiece();
      if (piece !== null) return controller.enqueue(piece);
      controller.close();
      controller.byobRequest?.respond(0);
    },
  });
}
