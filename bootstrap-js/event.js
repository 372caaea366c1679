// Forms that take an object made of the request: `(event, context)`, also with a callback, and
// `main(params)`.

import { primordials } from "ext:core/mod.js";
import { makeGatewayEvent } from "ext:cloudserve/gateway_event.js";
import { makeEvent } from "ext:cloudserve/request.js";

const {
  DateNow,
  MathMax,
  Promise,
  ReflectApply,
  StringPrototypeToLowerCase,
} = primordials;

/** The event of a call, in the format the function is to get. */
export async function eventOf(call, settings) {
  const body = call.isWhole ? call.takeWhole() : await call.wholeBody();
  const make = settings.eventFormat === "lambda-v1" ? makeGatewayEvent : makeEvent;
  return make(call.request, body, settings.eventFormat, call.startedMs);
}

/** `(event, context)` */
export async function callEvent(call, { handler }, settings) {
  const event = await eventOf(call, settings);
  return new Promise((resolve, reject) => {
    const answer = new Answer(resolve, reject);
    const context = makeContext(call, settings, answer);
    const takesCallback = handler.length >= 3;
    const args = takesCallback ? [event, context, answer.callback] : [event, context];
    const returned = ReflectApply(handler, undefined, args);
    // What comes first is the answer: the callback, the context's methods, or what was returned.
    if (typeof returned?.then === "function") {
      returned.then((value) => answer.returned(value, context), reject);
    } else if (!takesCallback || returned !== undefined) {
      answer.returned(returned, context);
    }
  });
}

/** `main(params)`: query and body as one object, and the request under the names it has there. */
export async function callMain(call, { main }, settings) {
  const event = await eventOf(call, settings);
  const { body, headers, path, query, rawBody, rawQueryString, isBase64Encoded } = event;
  const method = StringPrototypeToLowerCase(event.method);
  const fields = typeof body === "object" && body !== null ? body : {};
  const params = {
    ...query,
    ...fields,
    __ow_method: method,
    __ow_headers: headers,
    __ow_path: path,
    __ow_query: rawQueryString,
    __ow_body: rawBody,
    __ow_isBase64Encoded: isBase64Encoded,
    http: {
      method: event.method,
      headers,
      path,
      queryString: rawQueryString,
      body: rawBody,
      isBase64Encoded,
    },
  };
  return ReflectApply(main, undefined, [params, makeContext(call, settings, null)]);
}

/** Where the answer of `(event, context)` may come from, other than being returned. */
class Answer {
  constructor(resolve, reject) {
    this.resolve = resolve;
    this.reject = reject;
    this.statusCode = undefined;
    this.headers = undefined;
    this.callback = (error, result) =>
      error === undefined || error === null ? this.succeed(result) : this.fail(error);
  }

  succeed(value) {
    if (this.statusCode === undefined && this.headers === undefined) return this.resolve(value);
    this.resolve({
      statusCode: this.statusCode ?? 200,
      headers: this.headers,
      body: value,
    });
  }

  fail(error) {
    if (this.statusCode === undefined) return this.reject(error);
    this.succeed(typeof error === "string" ? error : `${error?.message ?? error}`);
  }

  returned(value, context) {
    this.succeed(value === context ? undefined : value);
  }
}

/** What a handler may ask about its call; `answer` is null for forms that only return. */
export function makeContext(call, settings, answer) {
  const context = {
    functionName: settings.functionName,
    functionVersion: settings.functionVersion,
    invokedFunctionArn: `cloudserve:${settings.ownerName}:${settings.functionName}`,
    memoryLimitInMB: settings.memoryMb,
    awsRequestId: call.request.executionId,
    executionId: call.request.executionId,
    logGroupName: `/cloudserve/${settings.functionName}`,
    logStreamName: call.request.executionId,
    callbackWaitsForEmptyEventLoop: false,
    getRemainingTimeInMillis: () => MathMax(0, call.deadlineMs - DateNow()),
    waitUntil: (promise) => call.waitUntil(promise),
  };
  if (answer === null) return context;
  // AWS's older style and OpenFaaS's.
  context.succeed = (value) => answer.succeed(value);
  context.fail = (error) => answer.fail(error);
  context.done = (error, value) => answer.callback(error, value);
  context.status = (code) => {
    if (code === undefined) return answer.statusCode ?? 200;
    answer.statusCode = code;
    return context;
  };
  context.headers = (headers) => {
    if (headers === undefined) return answer.headers ?? {};
    answer.headers = headers;
    return context;
  };
  return context;
}
