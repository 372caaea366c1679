// The bridge between the host (Rust) and the handler. The host calls the functions of `bridge`;
// this side calls the functions of `host`, which `assign` hands over. There is one call at a time,
// which is `current` from `request` until it is done.
//
// User code may replace any global and any prototype's methods. What runs here after user code was
// loaded uses its own copies (primordials) wherever that is possible.

import { core, internals, primordials } from "ext:core/mod.js";
import { ANSWERED, Call, Incoming, LEVEL_ERROR } from "ext:cloudserve/call.js";
import { captureDenoServe, captured } from "ext:cloudserve/capture.js";
import "ext:cloudserve/deferred.js";
import "ext:cloudserve/descriptors.js";
import { describe } from "ext:cloudserve/errors.js";
import { callEvent, callMain } from "ext:cloudserve/event.js";
import { callDenoServe, callFetch, callMethod } from "ext:cloudserve/fetch.js";
import { explainFetchErrors } from "ext:cloudserve/fetch_errors.js";
import { captureFetchEvents } from "ext:cloudserve/fetch_event.js";
import { chooseHandler } from "ext:cloudserve/handlers.js";
import { openSockets } from "ext:cloudserve/leftovers.js";
import { callListener, serverForListener } from "ext:cloudserve/listener.js";
import { settleNode, startNode } from "ext:cloudserve/node.js";
import { completeProcess } from "ext:cloudserve/process.js";
import { headersForHost, normalise, pieceOf } from "ext:cloudserve/response.js";
import { callServer, serverOf } from "ext:cloudserve/server.js";
import { awslambda, callStream } from "ext:cloudserve/stream.js";
import { acceptUpgrade } from "ext:cloudserve/web_socket.js";
import { offerWebSocketPair } from "ext:cloudserve/web_socket_pair.js";

const { defineEventHandler } = core.loadExtScript("ext:deno_web/02_event.js");
const { abortRequest } = core.loadExtScript("ext:deno_fetch/23_request.js");
const { default: process } = core.createLazyLoader("node:process")();
completeProcess(process);
const { setInterval } = core.loadExtScript("ext:deno_web/02_timers.js");
const { Console, inspectArgs } = core.loadExtScript("ext:deno_web/01_console.js");
const {
  ErrorCaptureStackTrace,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  SymbolAsyncIterator,
  SymbolFor,
  Uint8Array,
} = primordials;
const encode = core.encode;

const NOTHING = new Uint8Array(0);
/** Is fulfilled: what waits for it comes after what was put off before. */
const NOW = PromiseResolve();
const LEVEL_DEBUG = 0;
/** The longest that a timer may take. */
const LONGEST_MS = 2 ** 31 - 1;

let host;
let settings;
let handler;
let callHandler;
let chosen = null;
let console;
let platformConsole;
// No Map: one that lives long makes a new table in the old generation for every call.
let current = null;

/** How each kind of handler is called. What it returns becomes the answer, unless `ANSWERED`. */
const FORMS = {
  __proto__: null,
  "deno-serve": callDenoServe,
  server: callServer,
  fetch: callFetch,
  methods: callMethod,
  "lambda-stream": callStream,
  app: callServer,
  listener: callListener,
  event: callEvent,
  main: callMain,
  constant: (_call, { value }) => value,
};

/** Forms whose handlers get nothing of the headers, or ask for them by the `Request` they get. */
const ASKED_LATER = {
  __proto__: null,
  "deno-serve": true,
  fetch: true,
  methods: true,
  constant: true,
};

/** Chooses the form, and makes what it needs besides what was exported. */
async function prepare(namespace) {
  chosen = chooseHandler(namespace, captured);
  if (chosen === null) return;
  switch (chosen.kind) {
    case "server":
    case "app":
      if (chosen.ready !== undefined) await chosen.ready();
      chosen.server = serverOf(chosen);
      break;
    case "listener":
      chosen.server = serverOf({ server: serverForListener(chosen.listener) });
      break;
    case "lambda-stream":
      // On AWS a body is never parsed.
      if (settings.eventFormat === "auto") settings.eventFormat = "lambda";
  }
  handler = chosen;
  callHandler = FORMS[chosen.kind];
}

function run(call) {
  let rest;
  try {
    const value = callHandler(call, handler, settings);
    rest = typeof value?.then === "function" ? respondTo(call, value) : respond(call, value);
  } catch (error) {
    return fail(call, error);
  }
  // Also when there is nothing to wait for: what the handler has put off belongs to its call.
  if (rest !== undefined) return void conclude(call, rest);
  try {
    PromisePrototypeThen(NOW, () => concludeAtOnce(call));
  } catch {
    // It asks `Promise.prototype` for a constructor, which code may have replaced. To await does not.
    conclude(call);
  }
}

async function respondTo(call, promise) {
  const rest = respond(call, await promise);
  if (rest !== undefined) await rest;
}

/** Answers; undefined if all of the answer is sent. */
function respond(call, value) {
  if (value !== ANSWERED) return answer(call, normalise(value));
}

/** The same as `conclude`, and in most calls there is nothing to wait for: it costs a third. */
function concludeAtOnce(call) {
  if (call.background !== null) return conclude(call);
  call.conclude();
  finish(call);
}

async function conclude(call, rest) {
  try {
    await rest;
    call.conclude();
    if (call.background !== null) await call.backgroundDone();
  } catch (error) {
    return fail(call, error);
  }
  finish(call);
}

/**
 * What was handed to `waitUntil` is finished first, unless the caller has a part of the answer and
 * is to learn that the rest will not come. That may last longer than the call: what was thrown is in
 * the log before, and only once.
 */
async function fail(call, error) {
  const text = describe(error);
  call.conclude();
  if (call.background !== null && !call.hasBegun) {
    host.log(LEVEL_ERROR, text[1]);
    text[1] = text[0];
    await call.backgroundDone();
  }
  finish(call, text);
}

/** Sends the answer; undefined if all of it is sent. */
function answer(call, { status, headers, body, webSocket }) {
  if (status === 101) return acceptUpgrade(call, headers, webSocket);
  const isWanted = call.request.method !== "HEAD";
  if (
    body === null || typeof body === "string" ||
    typeof body.getReader !== "function" && !isIterable(body)
  ) {
    return host.answer(call.id, status, headersForHost(headers), isWanted ? body : null);
  }
  const source = typeof body.getReader === "function" ? body.getReader() : readerOf(body);
  if (isWanted) {
    call.begin(status, headers);
    return pump(call, source);
  }
  host.answer(call.id, status, headers, null);
  cancel(source);
}

function isIterable(body) {
  return typeof body[SymbolAsyncIterator] === "function";
}

/** Sends a stream piece by piece, as fast as the caller takes them. */
async function pump(call, source) {
  try {
    while (!call.cancelled) {
      const next = await nextOf(call, source);
      if (next.done) break;
      const piece = pieceOf(next.value);
      const bytes = typeof piece === "string" ? encode(piece) : piece;
      if (!call.writeNow(bytes)) await call.write(bytes);
    }
  } catch (error) {
    cancel(source);
    throw error;
  }
  if (call.cancelled) cancel(source);
  else host.chunk(call.id, NOTHING, true);
}

/** Nobody waits for what the source does about it, or fails to. */
async function cancel(source) {
  try {
    await source.cancel();
  } catch {
    // See above.
  }
}

/** What is read next; the end, once nobody waits for the answer. */
function nextOf(call, source) {
  return new Promise((resolve, reject) => {
    call.onCancel = () => resolve({ done: true });
    PromisePrototypeThen(PromiseResolve(source.read()), resolve, reject);
  });
}

function readerOf(iterable) {
  const iterator = iterable[SymbolAsyncIterator]();
  const cancel = () => {
    if (typeof iterable.destroy !== "function") return iterator.return?.();
    // A stream of Node's. Its iterator does not end it before it was read from, nor while it waits;
    // and what fails then would end the process, if nobody listened.
    iterable.on?.("error", () => {});
    iterable.destroy();
  };
  return { read: () => iterator.next(), cancel };
}

/** `failure` is what `describe` says of what was thrown, if anything was. */
function finish(call, failure) {
  if (current !== call) return;
  current = null;
  if (failure === undefined) host.done(call.id);
  else host.failed(call.id, failure[0], failure[1]);
}

/** `waitUntil` where Supabase has it, and where packages of Vercel look for it. */
function offerWaitUntil(global) {
  const waitUntil = (promise) => current?.waitUntil(promise);
  global.EdgeRuntime = { waitUntil };
  global[SymbolFor("@vercel/request-context")] = { get: () => ({ waitUntil }) };
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
  if (current !== null && current.id === id) then(current);
}

globalThis.__cloudserve = {
  /** Once, in an isolate that may be no process's yet. */
  boot() {
    startNode();
    delete internals.core;
    captureDenoServe(globalThis.Deno);
    captureFetchEvents(globalThis);
    explainFetchErrors(globalThis);
    defineEventHandler(globalThis, "rejectionhandled");
    globalThis.awslambda = awslambda;
    offerWaitUntil(globalThis);
    offerWebSocketPair(globalThis);
  },

  /** Once, in the process that the isolate is to stay in. */
  settle() {
    settleNode();
  },

  /** Once: what the host offers. */
  offer(hostFunctions) {
    host = hostFunctions;
    console = makeConsole();
  },

  /** What the worker was assigned. */
  assign(assignment) {
    settings = assignment;
    settings.arn = `cloudserve:${assignment.ownerName}:${assignment.functionName}`;
    settings.logGroup = `/cloudserve/${assignment.functionName}`;
    platformConsole = globalThis.console;
    globalThis.console = console;
    process.argv[1] = assignment.bundlePath;
  },

  /**
   * With the evaluated module: returns the kind of its handler, or undefined. A module may come to
   * listen later, and an app may take time to get ready, so this is asked again until there is one.
   */
  loaded(namespace) {
    // If it fails, in a getter of the module's too, that surfaces as a rejection nobody handled: the
    // module did not load.
    if (chosen === null) prepare(namespace);
    return handler?.kind;
  },

  /** Of the handler that was found: whether each call of it takes the headers of its request. */
  takesHeaders: () => !ASKED_LATER[handler.kind] && handler.sees !== 0,

  /** Whether the module has started a server, whose end it may be waiting for. */
  serves: () => captured.serve !== null || captured.server !== null,

  /** Holds the module's wait for the end of its server, as a server with a port would. */
  hold: () => void setInterval(() => {}, LONGEST_MS),

  /** Takes back what `assign` and `loaded` have set: what was called was a rehearsal. */
  forget() {
    globalThis.console = platformConsole;
    settings = handler = callHandler = undefined;
    chosen = null;
  },

  /** The bundle carries an adapter that expects events exactly as AWS makes them. */
  useLambdaEvents() {
    settings.eventFormat = "lambda";
  },

  /** The bundle names it: `Response` takes a `webSocket` before anything of the bundle has run. */
  useWebSocketPair: () => void globalThis.WebSocketPair,

  request(id, executionId, method, target, headers, body, end, budgetMs) {
    const request = new Incoming(host, executionId, method, target, headers, body, end);
    const call = new Call(host, id, request, budgetMs, settings.initialCreditBytes);
    current = call;
    // What the call before has entered into an `AsyncLocalStorage` is not this one's.
    core.setAsyncContext(undefined);
    run(call);
  },

  /** Whether anybody has waited for that. */
  idle() {
    if (current === null || current.onIdle === null) return false;
    current.idle();
    return true;
  },

  sockets: () => openSockets(),

  body: (id, bytes, end) => withCall(id, (call) => call.receive(bytes, end)),
  trailers: (id, trailers) => withCall(id, (call) => call.receiveTrailers(trailers)),
  bodyAborted: (id) => withCall(id, (call) => call.abort()),
  credit: (id, bytes) => withCall(id, (call) => call.grant(bytes)),

  cancel: (id) =>
    withCall(id, (call) => {
      call.cancel();
      if (call.webRequest !== null) abortRequest(call.webRequest);
    }),
};
