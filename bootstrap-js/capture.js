// What a module does, instead of exporting a handler, to be called: `Deno.serve` and `listen`
// (and see `fetch_event.js`). They are taken over before user code runs. No port is opened; the first of
// a kind that a module starts is its handler.

import { primordials } from "ext:core/mod.js";
import http from "node:http";
import https from "node:https";
import net from "node:net";

const {
  Number,
  ObjectDefineProperty,
  ObjectPrototypeIsPrototypeOf,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  ReflectApply,
  SymbolAsyncDispose,
  TypeError,
} = primordials;

/** What is told to those who ask where they listen. */
const HOST = "127.0.0.1";
const DEFAULT_PORT = 8000;
const FIRST_FREE_PORT = 49_152;

/** What was started first. */
export const captured = { serve: null, server: null, fetch: null };

let nextFreePort = FIRST_FREE_PORT;

const isFunction = (value) => typeof value === "function";

/** Whether requests are what the server gets: `node:http`, `node:https` and `node:http2`. */
function takesRequests(server) {
  return ObjectPrototypeIsPrototypeOf(http.Server.prototype, server) ||
    ObjectPrototypeIsPrototypeOf(https.Server.prototype, server) ||
    isFunction(server.updateSettings);
}

const listenOnSocket = net.Server.prototype.listen;

net.Server.prototype.listen = function listen(...args) {
  // One that listens already is told so.
  if (!takesRequests(this) || this._handle) return ReflectApply(listenOnSocket, this, args);
  const last = args[args.length - 1];
  if (isFunction(last)) this.once("listening", last);
  const first = args[0];
  const options = typeof first === "object" && first !== null ? first : { port: first };
  captured.server ??= this;
  startInMemory(this, Number(options.port) || nextFreePort++);
  options.signal?.addEventListener("abort", () => this.close(), { once: true });
  return this;
};

/** Makes a server believe that it listens. */
export function startInMemory(server, port) {
  server._handle = {
    close(done) {
      if (isFunction(done)) done();
    },
    ref() {},
    unref() {},
    hasRef: () => true,
    getsockname(out) {
      out.address = HOST;
      out.family = "IPv4";
      out.port = port;
      return 0;
    },
  };
  globalThis.process.nextTick(() => server.emit("listening"));
}

/** `Deno.serve` in all its forms. The namespace exists once the process has booted. */
export function captureDenoServe(Deno) {
  const serve = function serve(...args) {
    const isOptions = typeof args[0] === "object" && args[0] !== null;
    const options = isOptions ? args[0] : isFunction(args[0]) ? args[1] ?? {} : {};
    const handler = isFunction(args[0]) ? args[0] : isFunction(args[1]) ? args[1] : options.handler;
    if (!isFunction(handler)) throw new TypeError("A handler function must be provided.");
    let finish;
    const finished = new Promise((resolve) => {
      finish = resolve;
    });
    const addr = {
      transport: "tcp",
      hostname: options.hostname ?? HOST,
      port: options.port ?? DEFAULT_PORT,
    };
    captured.serve ??= { handler, onError: options.onError, server: addr };
    if (isFunction(options.onListen)) {
      PromisePrototypeThen(PromiseResolve(), () => options.onListen(addr));
    }
    options.signal?.addEventListener("abort", () => finish(), { once: true });
    const shutdown = () => {
      finish();
      return finished;
    };
    const server = { addr, finished, shutdown, ref() {}, unref() {} };
    server[SymbolAsyncDispose] = shutdown;
    return server;
  };
  ObjectDefineProperty(Deno, "serve", {
    __proto__: null,
    value: serve,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}
