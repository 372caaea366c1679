// The request in the shapes handlers expect: a `Request`, or the superset `event`.
// Pure functions of the parts that came over the wire; no host calls.

const { decodeURIComponent, JSON, Object, String, TextDecoder, URLSearchParams, Request, btoa } =
  globalThis;
const parseJson = JSON.parse;
const strictUtf8 = new TextDecoder("utf-8", { fatal: true });
const looseUtf8 = new TextDecoder();

/** Headers as one object; repeated names are joined with ", " (cookies with "; "). */
export function headersObject(flat) {
  const headers = Object.create(null);
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i];
    const seen = headers[name];
    headers[name] = seen === undefined
      ? flat[i + 1]
      : seen + (name === "cookie" ? "; " : ", ") + flat[i + 1];
  }
  return { ...headers };
}

function splitTarget(target) {
  const at = target.indexOf("?");
  return at < 0 ? [target, ""] : [target.slice(0, at), target.slice(at + 1)];
}

function queryObjects(rawQuery) {
  const query = Object.create(null);
  const joined = Object.create(null);
  if (rawQuery !== "") {
    new URLSearchParams(rawQuery).forEach((value, name) => {
      const seen = query[name];
      if (seen === undefined) query[name] = value;
      else if (typeof seen === "string") query[name] = [seen, value];
      else seen.push(value);
      joined[name] = joined[name] === undefined ? value : `${joined[name]},${value}`;
    });
  }
  return [{ ...query }, { ...joined }];
}

function base64(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) {
    binary += String.fromCharCode.apply(null, bytes.subarray(i, i + 0x8000));
  }
  return btoa(binary);
}

const TEXT_TYPE = /^(text\/|application\/([\w.+-]*\+)?(json|xml|javascript|x-www-form-urlencoded|graphql)\b)/i;
const JSON_TYPE = /^application\/([\w.+-]*\+)?json\b/i;
const FORM_TYPE = /^application\/x-www-form-urlencoded\b/i;

/** `[rawBody, isBase64Encoded]`: text where the bytes are text, else base64. */
function rawBodyOf(bytes, contentType) {
  if (bytes === null || bytes.length === 0) return ["", false];
  if (contentType === "" || TEXT_TYPE.test(contentType)) {
    try {
      return [strictUtf8.decode(bytes), false];
    } catch {
      return [base64(bytes), true];
    }
  }
  return [base64(bytes), true];
}

function parsedBody(raw, contentType) {
  if (JSON_TYPE.test(contentType)) {
    try {
      return parseJson(raw);
    } catch {
      return raw;
    }
  }
  if (FORM_TYPE.test(contentType)) return queryObjects(raw)[0];
  return raw;
}

function decodedPath(rawPath) {
  try {
    return decodeURIComponent(rawPath);
  } catch {
    return rawPath;
  }
}

/** The `event` of `(event, context)` handlers: the union of what platforms call by these names. */
export function makeEvent(request, bytes, eventFormat, executionId, startedMs) {
  const headers = headersObject(request.headers);
  const [rawPath, rawQueryString] = splitTarget(request.target);
  const [query, queryStringParameters] = queryObjects(rawQueryString);
  const contentType = headers["content-type"] ?? "";
  const [rawBody, isBase64Encoded] = rawBodyOf(bytes, contentType);
  const path = decodedPath(rawPath);
  const sourceIp = (headers["x-forwarded-for"] ?? "").split(",")[0].trim();
  let body = rawBody;
  if (bytes === null || bytes.length === 0) body = eventFormat === "lambda" ? null : undefined;
  else if (eventFormat !== "lambda" && !isBase64Encoded) body = parsedBody(rawBody, contentType);
  return {
    version: "2.0",
    routeKey: "$default",
    method: request.method,
    httpMethod: request.method,
    path,
    rawPath,
    rawQueryString,
    query,
    queryStringParameters,
    headers,
    cookies: headers.cookie === undefined ? [] : headers.cookie.split(/; */),
    body,
    rawBody,
    isBase64Encoded,
    requestContext: {
      requestId: executionId,
      stage: "$default",
      domainName: headers.host ?? "",
      timeEpoch: startedMs,
      http: {
        method: request.method,
        path,
        protocol: "HTTP/1.1",
        sourceIp,
        userAgent: headers["user-agent"] ?? "",
      },
    },
  };
}

/** The `Request` of fetch-style handlers. `body` is null, bytes or a ReadableStream. */
export function makeRequest(request, body) {
  const headers = [];
  let host = "localhost";
  let scheme = "http";
  for (let i = 0; i < request.headers.length; i += 2) {
    const name = request.headers[i];
    const value = request.headers[i + 1];
    if (name === "host") host = value;
    else if (name === "x-forwarded-proto" && value === "https") scheme = "https";
    headers.push([name, value]);
  }
  const init = { method: request.method, headers };
  if (body !== null && request.method !== "GET" && request.method !== "HEAD") {
    init.body = body;
    if (typeof body === "object" && "getReader" in body) init.duplex = "half";
  }
  return new Request(`${scheme}://${host}${request.target}`, init);
}

export function decodeText(bytes) {
  return looseUtf8.decode(bytes);
}
