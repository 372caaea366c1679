// The bridge between the host (Rust) and the handler. The host calls the functions of `bridge`;
// this side calls the functions of `host`, which were handed to `assign`. A call lives in `calls`
// from `request` until `done`.

import { core } from "ext:core/mod.js";
import { allowedMethods, chooseHandler } from "ext:cloudserve/handlers.js";
import { makeEvent, makeRequest } from "ext:cloudserve/request.js";
import { normalise } from "ext:cloudserve/response.js";

const { Console } = core.loadExtScript("ext:deno_web/01_console.js");
const { Date, Error, Map, Promise, ReadableStream, Response, String, Symbol, TextEncoder, Uint8Array } =
  globalThis;
const encoder = new TextEncoder();
const now = Date.now;
const allSettled = Promise.allSettled.bind(Promise);
const CHUNK_BYTES = 64 * 1024;

let host;
let settings;
let handler;
const calls = new Map();

class Call {
  constructor(id, request, budgetMs) {
    this.id = id;
    this.request = request;
    this.startedMs = now();
    this.deadlineMs = this.startedMs + budgetMs;
    this.pieces = [];
    this.ended = request.end;
    this.aborted = false;
    this.wake = null;
    this.credit = 0;
    this.wakeWriter = null;
    this.waiting = null;
    this.cancelled = false;
    if (request.body !== null) this.pieces.push(request.body);
  }

  /** The next piece of the request's body, or null at its end. */
  async nextPiece() {
    while (this.pieces.length === 0) {
      if (this.aborted) throw new Error("the request body was cut off: the caller went away");
      if (this.ended) return null;
      await new Promise((resolve) => this.wake = resolve);
    }
    const piece = this.pieces.shift();
    if (!this.ended) host.credit(this.id, piece.byteLength);
    return piece;
  }

  async wholeBody() {
    if (this.ended && this.pieces.length <= 1) return this.pieces.pop() ?? null;
    const pieces = [];
    let total = 0;
    for (let piece; (piece = await this.nextPiece()) !== null;) {
      pieces.push(piece);
      total += piece.byteLength;
    }
    const all = new Uint8Array(total);
    let at = 0;
    for (const piece of pieces) {
      all.set(piece, at);
      at += piece.byteLength;
    }
    return all;
  }

  bodyForRequest() {
    if (this.ended && this.pieces.length <= 1) return this.pieces.pop() ?? null;
    return new ReadableStream({
      type: "bytes",
      pull: async (controller) => {
        const piece = await this.nextPiece();
        if (piece === null) {
          controller.close();
          controller.byobRequest?.respond(0);
        } else if (piece.byteLength > 0) controller.enqueue(piece);
      },
    });
  }

  waitUntil(promise) {
    (this.waiting ??= []).push(promise);
  }
}

function wake(call, what) {
  const resolve = call[what];
  call[what] = null;
  resolve?.();
}

async function invoke(call) {
  switch (handler.kind) {
    case "fetch":
      return await handler.fetch(makeRequest(call.request, call.bodyForRequest()), settings.env, {
        waitUntil: (promise) => call.waitUntil(promise),
        passThroughOnException() {},
      });
    case "methods": {
      const { method } = call.request;
      const { methods } = handler;
      const found = methods.get(method) ?? (method === "HEAD" ? methods.get("GET") : undefined);
      if (found === undefined) {
        return new Response("method not allowed\n", {
          status: 405,
          headers: { allow: allowedMethods(methods) },
        });
      }
      return await found(makeRequest(call.request, call.bodyForRequest()), {
        env: settings.env,
        waitUntil: (promise) => call.waitUntil(promise),
      });
    }
    case "event":
      return await invokeWithEvent(call);
    default:
      return handler.value;
  }
}

async function invokeWithEvent(call) {
  const event = makeEvent(
    call.request,
    await call.wholeBody(),
    settings.eventFormat,
    call.request.executionId,
    call.startedMs,
  );
  const context = {
    functionName: settings.functionName,
    functionVersion: settings.functionVersion,
    invokedFunctionArn: `cloudserve:${settings.ownerName}:${settings.functionName}`,
    memoryLimitInMB: settings.memoryMb,
    awsRequestId: call.request.executionId,
    executionId: call.request.executionId,
    callbackWaitsForEmptyEventLoop: false,
    getRemainingTimeInMillis: () => Math.max(0, call.deadlineMs - now()),
    waitUntil: (promise) => call.waitUntil(promise),
  };
  if (handler.handler.length < 3) return await handler.handler(event, context);
  return await new Promise((resolve, reject) => {
    const callback = (error, result) => error ? reject(error) : resolve(result);
    const returned = handler.handler(event, context, callback);
    if (typeof returned?.then === "function") returned.then(resolve, reject);
  });
}

async function run(call) {
  try {
    await answer(call, normalise(await invoke(call)));
    if (call.waiting !== null) await allSettled(call.waiting);
    finish(call);
  } catch (error) {
    finish(call, error);
  }
}

function finish(call, error) {
  if (!calls.delete(call.id)) return;
  if (error === undefined) host.done(call.id);
  else host.failed(call.id, ...describe(error));
}

/** `[one line, stack]` of anything that can be thrown. */
function describe(error) {
  try {
    if (error instanceof Error) {
      return [`${error.name}: ${error.message}`.split("\n", 1)[0], String(error.stack)];
    }
    const text = typeof error === "object" ? JSON.stringify(error) : String(error);
    return [`Uncaught ${text}`.split("\n", 1)[0], `Uncaught ${text}`];
  } catch {
    return ["Uncaught value that cannot be shown", ""];
  }
}

async function answer(call, { status, headers, body }) {
  if (body === null || typeof body === "string" || body instanceof Uint8Array) {
    host.answer(call.id, status, headers, body);
    return;
  }
  const reader = typeof body.getReader === "function" ? body.getReader() : fromIterable(body);
  call.credit = settings.initialCreditBytes;
  host.head(call.id, status, headers);
  for (let next; !(next = await reader.read()).done;) {
    await write(call, toBytes(next.value));
    if (call.cancelled) {
      reader.cancel?.()?.catch?.(() => {});
      return;
    }
  }
  host.chunk(call.id, EMPTY, true);
}

const EMPTY = new Uint8Array(0);

function fromIterable(iterable) {
  const iterator = iterable[Symbol.asyncIterator]();
  return { read: () => iterator.next(), cancel: async () => await iterator.return?.() };
}

function toBytes(piece) {
  if (piece instanceof Uint8Array) return piece;
  if (typeof piece === "string") return encoder.encode(piece);
  const made = normalise(piece).body;
  return typeof made === "string" ? encoder.encode(made) : made;
}

async function write(call, bytes) {
  for (let at = 0; at < bytes.byteLength;) {
    while (call.credit === 0 && !call.cancelled) {
      await new Promise((resolve) => call.wakeWriter = resolve);
    }
    if (call.cancelled) return;
    const end = Math.min(bytes.byteLength, at + CHUNK_BYTES, at + call.credit);
    host.chunk(call.id, bytes.subarray(at, end), false);
    call.credit -= end - at;
    at = end;
  }
}

globalThis.__cloudserve = {
  /** Once: what the host offers and what the worker was assigned. */
  assign(hostFunctions, assignment) {
    host = hostFunctions;
    settings = assignment;
    globalThis.console = new Console((message, level) => host.log(level, message));
  },

  /** Once, with the evaluated module: returns the kind of its handler, or undefined. */
  loaded(namespace) {
    handler = chooseHandler(namespace);
    return handler?.kind;
  },

  request(id, executionId, method, target, headers, body, end, budgetMs) {
    const call = new Call(id, { executionId, method, target, headers, body, end }, budgetMs);
    calls.set(id, call);
    run(call);
  },

  body(id, bytes, end) {
    const call = calls.get(id);
    if (call === undefined) return;
    if (bytes.byteLength > 0) call.pieces.push(bytes);
    call.ended = end;
    wake(call, "wake");
  },

  bodyAborted(id) {
    const call = calls.get(id);
    if (call === undefined) return;
    call.aborted = true;
    wake(call, "wake");
  },

  credit(id, bytes) {
    const call = calls.get(id);
    if (call === undefined) return;
    call.credit += bytes;
    wake(call, "wakeWriter");
  },

  cancel(id) {
    const call = calls.get(id);
    if (call === undefined) return;
    call.cancelled = true;
    call.aborted = true;
    wake(call, "wakeWriter");
    wake(call, "wake");
  },
};
