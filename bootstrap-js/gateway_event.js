// The event of API Gateway's REST APIs, payload format 1.0.

import { primordials } from "ext:core/mod.js";
import { encodedBody, headersObject, peerOf, splitTarget } from "ext:cloudserve/request.js";

const {
  ArrayPrototypePush,
  Date,
  DatePrototypeToUTCString,
  FunctionPrototypeCall,
  ObjectKeys,
  StringPrototypeSlice,
} = primordials;
const { URLSearchParams } = globalThis;
const forEachParam = URLSearchParams.prototype.forEach;

const STAGE = "$default";

/** `{name: last value}` and `{name: [all values]}`; null where there is none, as on AWS. */
function collect(each) {
  const single = { __proto__: null };
  const multi = { __proto__: null };
  each((name, value) => {
    single[name] = value;
    ArrayPrototypePush(multi[name] ??= [], value);
  });
  const isEmpty = ObjectKeys(single).length === 0;
  return isEmpty ? [null, null] : [{ ...single }, { ...multi }];
}

/** An instant as AWS writes it: `09/Apr/2015:12:34:56 +0000`. */
function asInLogs(ms) {
  // Wed, 09 Apr 2015 12:34:56 GMT
  const text = DatePrototypeToUTCString(new Date(ms));
  const part = (from, to) => StringPrototypeSlice(text, from, to);
  return `${part(5, 7)}/${part(8, 11)}/${part(12, 16)}:${part(17, 25)} +0000`;
}

/** The event for this request. */
export function makeGatewayEvent(request, bytes, _eventFormat, startedMs) {
  const { method, target } = request;
  const headers = headersObject(request.headers);
  const { 0: path, 1: rawQuery } = splitTarget(target);
  const { 1: multiValueHeaders } = collect((add) => {
    for (let i = 0; i < request.headers.length; i += 2) {
      add(request.headers[i], request.headers[i + 1]);
    }
  });
  const { 0: queryStringParameters, 1: multiValueQueryStringParameters } = collect((add) => {
    const params = new URLSearchParams(rawQuery);
    FunctionPrototypeCall(forEachParam, params, (value, name) => add(name, value));
  });
  const { 0: body, 1: isBase64Encoded } = encodedBody(bytes, headers["content-type"] ?? "");
  const proxy = StringPrototypeSlice(path, 1);
  return {
    version: "1.0",
    resource: "/{proxy+}",
    path,
    httpMethod: method,
    headers,
    multiValueHeaders,
    queryStringParameters,
    multiValueQueryStringParameters,
    pathParameters: proxy === "" ? null : { proxy },
    stageVariables: null,
    requestContext: {
      accountId: "",
      apiId: "",
      domainName: headers.host ?? "",
      extendedRequestId: request.executionId,
      httpMethod: method,
      identity: { sourceIp: peerOf(request), userAgent: headers["user-agent"] ?? "" },
      path,
      protocol: "HTTP/1.1",
      requestId: request.executionId,
      requestTime: asInLogs(startedMs),
      requestTimeEpoch: startedMs,
      resourceId: "",
      resourcePath: "/{proxy+}",
      stage: STAGE,
    },
    body,
    isBase64Encoded,
  };
}
