// Forms that take an object made of the request: `(event, context)`, also with a callback, and
// `main(params)`.

import { primordials } from "ext:core/mod.js";
import { makeGatewayEvent } from "ext:cloudserve/gateway_event.js";
import { makeEvent } from "ext:cloudserve/request.js";
import { withStatus } from "ext:cloudserve/response.js";

const {
  DateNow,
  FunctionPrototypeCall,
  MathMax,
  ObjectPrototype,
  Promise,
  ReflectApply,
  StringPrototypeToLowerCase,
} = primordials;

/** The event of a call whose body is there, in the format the function is to get. */
function eventWith(call, body, settings) {
  const make = settings.eventFormat === "lambda-v1" ? makeGatewayEvent : makeEvent;
  return make(call.request, body, settings.eventFormat, call.startedMs);
}

/** The same of any call. */
export async function eventOf(call, settings) {
  return eventWith(call, await call.wholeBody(), settings);
}

/** `(event, context, callback)` */
export function callEvent(call, form, settings) {
  if (!call.isWhole) return callWithLateBody(call, form, settings);
  if (form.sees === 0) return ReflectApply(form.handler, undefined, []);
  return callWith(call, form, settings, eventWith(call, call.takeWhole(), settings));
}

async function callWithLateBody(call, form, settings) {
  return callWith(call, form, settings, await eventOf(call, settings));
}

/** What the handler answers, or a promise of it. */
function callWith(call, { handler, answersLater, sees }, settings, event) {
  // Then nothing but what is returned can be the answer.
  if (sees < 2) return ReflectApply(handler, undefined, [event]);
  const answer = new Answer();
  const context = new AnsweringContext(call, settings, answer);
  try {
    const returned = ReflectApply(handler, undefined, [event, context, context.done]);
    // What comes first is the answer: the callback, the context's methods, or what was returned.
    if (typeof returned?.then === "function") {
      returned.then(
        (value) => answer.returned(value, context),
        (error) => answer.settle(FAILED, error),
      );
    } else if (returned !== undefined || !answersLater) {
      answer.returned(returned, context);
    } else if (answer.state === OPEN) {
      // As on AWS: when nothing is left that could answer, nothing is the answer.
      call.onIdle = () => answer.returned(undefined, context);
    }
  } catch (error) {
    answer.settle(FAILED, error);
  }
  return answer.outcome();
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
  return withStatus(await ReflectApply(main, undefined, [params, new Context(call, settings)]));
}

const OPEN = 0;
const SUCCEEDED = 1;
const FAILED = 2;

/** Where the answer of `(event, context)` may come from, other than being returned. */
class Answer {
  constructor() {
    this.state = OPEN;
    this.value = undefined;
    this.told = null;
    this.statusCode = undefined;
    this.headers = undefined;
  }

  /** The first time counts. */
  settle(state, value) {
    if (this.state !== OPEN) return;
    this.state = state;
    this.value = value;
    this.told?.(this);
  }

  /** The answer if it is there, else a promise of it. */
  outcome() {
    if (this.state === OPEN) {
      return new Promise((resolve, reject) => {
        const tell = ({ state, value }) => state === FAILED ? reject(value) : resolve(value);
        this.told = tell;
      });
    }
    if (this.state === FAILED) throw this.value;
    return this.value;
  }

  succeed(value) {
    if (this.statusCode === undefined && this.headers === undefined) {
      return this.settle(SUCCEEDED, value);
    }
    this.settle(SUCCEEDED, {
      statusCode: this.statusCode ?? 200,
      headers: this.headers,
      body: value,
    });
  }

  fail(error) {
    if (this.statusCode === undefined) return this.settle(FAILED, error);
    this.succeed(typeof error === "string" ? error : `${error?.message ?? error}`);
  }

  returned(value, context) {
    this.succeed(value === context ? undefined : value);
  }
}

/**
 * What a handler may ask about its call. A plain object, but V8 knows its shape. Functions go through
 * a variable: V8 takes one that is written where a property gets it for one that lives long, and a
 * few in every call fill its old generation.
 */
export function Context(call, settings) {
  const { executionId } = call.request;
  const getRemainingTimeInMillis = () => MathMax(0, call.deadlineMs - DateNow());
  const waitUntil = (promise) => call.waitUntil(promise);
  this.functionName = settings.functionName;
  this.functionVersion = settings.functionVersion;
  this.invokedFunctionArn = settings.arn;
  this.memoryLimitInMB = settings.memoryMb;
  this.awsRequestId = executionId;
  this.executionId = executionId;
  this.logGroupName = settings.logGroup;
  this.logStreamName = executionId;
  this.callbackWaitsForEmptyEventLoop = false;
  this.getRemainingTimeInMillis = getRemainingTimeInMillis;
  this.waitUntil = waitUntil;
}
Context.prototype = ObjectPrototype;

/** It may answer, too, in AWS's older style and OpenFaaS's. */
function AnsweringContext(call, settings, answer) {
  FunctionPrototypeCall(Context, this, call, settings);
  const succeed = (value) => answer.succeed(value);
  const fail = (error) => answer.fail(error);
  const done = (error, result) =>
    error === undefined || error === null ? answer.succeed(result) : answer.fail(error);
  const status = (code) => {
    if (code === undefined) return answer.statusCode ?? 200;
    answer.statusCode = code;
    return this;
  };
  const headers = (headers) => {
    if (headers === undefined) return answer.headers ?? {};
    answer.headers = headers;
    return this;
  };
  this.succeed = succeed;
  this.fail = fail;
  this.done = done;
  this.status = status;
  this.headers = headers;
}
AnsweringContext.prototype = ObjectPrototype;
