// The bridge between the host (Rust) and the handler. The host calls the functions of `bridge`;
// this side calls the functions of `host`, which `assign` hands over. A call is in `calls` from
// `request` until it is done.
//
// User code may replace any global and any prototype's methods. What runs here after user code was
// loaded uses its own copies (primordials) wherever that is possible.

import { core, internals, primordials } from "ext:core/mod.js";
import { Call } from "ext:cloudserve/call.js";
import "ext:cloudserve/deferred.js";
import { describe } from "ext:cloudserve/errors.js";
import { chooseHandler } from "ext:cloudserve/handlers.js";
import { makeEvent, makeRequest } from "ext:cloudserve/request.js";
import { normalise, pieceOf } from "ext:cloudserve/response.js";

const { abortRequest } = core.loadExtScript("ext:deno_fetch/23_request.js");
const { default: process } = core.createLazyLoader("node:process")();
const { Console, inspectArgs } = core.loadExtScript("ext:deno_web/01_console.js");
const {
  ArrayPrototypePush,
  DateNow,
  ErrorCaptureStackTrace,
  MapPrototypeDelete,
  MapPrototypeGet,
  MapPrototypeSet,
  MathMax,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  ReflectApply,
  SafeMap,
  SymbolAsyncIterator,
  Uint8Array,
} = primordials;
const { Response, nodeBootstrap } = globalThis;
delete globalThis.nodeBootstrap;
const encode = core.encode;

const NOTHING = new Uint8Array(0);
const LEVEL_DEBUG = 0;
const LEVEL_ERROR = 3;

let host;
let settings;
let handler;
const calls = new SafeMap();

/** What the handler returned for this call. */
function invoke(call) {
  switch (handler.kind) {
    case "fetch":
      call.webRequest = makeRequest(call);
      return handler.fetch(call.webRequest, settings.env, {
        waitUntil: (promise) => waitUntil(call, promise),
        passThroughOnException() {},
      });
    case "methods":
      return invokeMethod(call);
    case "event":
      return invokeWithEvent(call);
    default:
      return handler.value;
  }
}

function invokeMethod(call) {
  const method = handler.methods[call.request.method];
  if (method === undefined) {
    const headers = { allow: handler.allow };
    return new Response("method not allowed\n", { status: 405, headers });
  }
  call.webRequest = makeRequest(call);
  return ReflectApply(method, undefined, [call.webRequest, {
    env: settings.env,
    waitUntil: (promise) => waitUntil(call, promise),
  }]);
}

async function invokeWithEvent(call) {
  const body = call.isWhole ? call.takeWhole() : await call.wholeBody();
  const event = makeEvent(call.request, body, settings.eventFormat, call.startedMs);
  const context = makeContext(call);
  const { handler: userFunction } = handler;
  if (userFunction.length < 3) return ReflectApply(userFunction, undefined, [event, context]);
  return new Promise((resolve, reject) => {
    const callback = (error, result) =>
      error === undefined || error === null ? resolve(result) : reject(error);
    const returned = ReflectApply(userFunction, undefined, [event, context, callback]);
    // A function that takes a callback and yet is async answers with what comes first.
    if (typeof returned?.then === "function") returned.then(resolve, reject);
  });
}

function makeContext(call) {
  return {
    functionName: settings.functionName,
    functionVersion: settings.functionVersion,
    invokedFunctionArn: `cloudserve:${settings.ownerName}:${settings.functionName}`,
    memoryLimitInMB: settings.memoryMb,
    awsRequestId: call.request.executionId,
    executionId: call.request.executionId,
    callbackWaitsForEmptyEventLoop: false,
    getRemainingTimeInMillis: () => MathMax(0, call.deadlineMs - DateNow()),
    waitUntil: (promise) => waitUntil(call, promise),
  };
}

/** Keeps the call open until the promise settles. A rejection is logged, not an error. */
function waitUntil(call, promise) {
  const settled = PromisePrototypeThen(PromiseResolve(promise), undefined, (error) => {
    host.log(LEVEL_ERROR, `waitUntil: ${describe(error)[1]}`);
  });
  ArrayPrototypePush(call.background ??= [], settled);
}

async function run(call) {
  try {
    const { status, headers, body } = normalise(await invoke(call));
    if (body === null || call.request.method === "HEAD") {
      host.answer(call.id, status, headers, null);
    } else if (typeof body === "string" || typeof body.getReader !== "function" && !isIterable(body)) {
      host.answer(call.id, status, headers, body);
    } else {
      host.head(call.id, status, headers);
      await pump(call, body);
    }
    // By index: what runs in the background may hand in more.
    for (let i = 0; i < (call.background?.length ?? 0); i++) await call.background[i];
  } catch (error) {
    return finish(call, error);
  }
  finish(call);
}

function isIterable(body) {
  return typeof body[SymbolAsyncIterator] === "function";
}

/** Sends a stream piece by piece, as fast as the caller takes them. */
async function pump(call, body) {
  const source = typeof body.getReader === "function" ? body.getReader() : readerOf(body);
  for (let next; !(next = await source.read()).done;) {
    const piece = pieceOf(next.value);
    await call.write(typeof piece === "string" ? encode(piece) : piece);
    if (call.cancelled) {
      await source.cancel();
      return;
    }
  }
  host.chunk(call.id, NOTHING, true);
}

function readerOf(iterable) {
  const iterator = iterable[SymbolAsyncIterator]();
  return { read: () => iterator.next(), cancel: () => iterator.return?.() };
}

function finish(call, ...thrown) {
  if (!MapPrototypeDelete(calls, call.id)) return;
  if (thrown.length === 0) {
    host.done(call.id);
  } else {
    const text = describe(thrown[0]);
    host.failed(call.id, text[0], text[1]);
  }
}

function makeConsole() {
  const print = (message, level) => host.log(level, message);
  const console = new Console(print);
  console.trace = (...args) => {
    const trace = { name: "Trace", message: inspectArgs(args) };
    ErrorCaptureStackTrace(trace, console.trace);
    print(trace.stack, LEVEL_DEBUG);
  };
  return console;
}

function withCall(id, then) {
  const call = MapPrototypeGet(calls, id);
  if (call !== undefined) then(call);
}

globalThis.__cloudserve = {
  /**
   * Once, in the booted process. `node:process` prepares itself when it is evaluated, but that was
   * while the snapshot was made: arguments, standard streams and `nextTick` are this process's.
   */
  boot() {
    nodeBootstrap(internals.__nodeBootstrapArgs);
    delete internals.core;
  },

  /** Once: what the host offers and what the worker was assigned. */
  assign(hostFunctions, assignment) {
    host = hostFunctions;
    settings = assignment;
    globalThis.console = makeConsole();
    process.argv[1] = assignment.bundlePath;
  },

  /** Once, with the evaluated module: returns the kind of its handler, or undefined. */
  loaded(namespace) {
    handler = chooseHandler(namespace);
    return handler?.kind;
  },

  request(id, executionId, method, target, headers, body, end, budgetMs) {
    const request = { executionId, method, target, headers, body, end };
    const call = new Call(host, id, request, budgetMs, settings.initialCreditBytes);
    MapPrototypeSet(calls, id, call);
    run(call);
  },

  body: (id, bytes, end) => withCall(id, (call) => call.receive(bytes, end)),
  bodyAborted: (id) => withCall(id, (call) => call.abort()),
  credit: (id, bytes) => withCall(id, (call) => call.grant(bytes)),

  cancel: (id) =>
    withCall(id, (call) => {
      call.cancel();
      if (call.webRequest !== null) abortRequest(call.webRequest);
    }),
};
