// Forms that take a `Request`: `Deno.serve`, `export default { fetch }`, `export function GET`.

import { primordials } from "ext:core/mod.js";
import { makeRequest, peerOf } from "ext:cloudserve/request.js";

const { Promise, PromiseResolve, ReflectApply } = primordials;
const { Response } = globalThis;

function passThroughOnException() {}

/** `export default { fetch(request, env, ctx) }` */
export function callFetch(call, handler, settings) {
  call.webRequest = makeRequest(call);
  const waitUntil = (promise) => call.waitUntil(promise);
  return handler.fetch(call.webRequest, settings.env, {
    waitUntil,
    passThroughOnException,
    props: {},
  });
}

/** `export function GET(request)` */
export function callMethod(call, handler, settings) {
  const method = handler.methods[call.request.method];
  if (method === undefined) {
    const headers = { allow: handler.allow };
    return new Response("method not allowed\n", { status: 405, headers });
  }
  call.webRequest = makeRequest(call);
  const waitUntil = (promise) => call.waitUntil(promise);
  return ReflectApply(method, undefined, [call.webRequest, {
    params: PromiseResolve({}),
    env: settings.env,
    waitUntil,
  }]);
}

/** The second argument of `Deno.serve`'s handlers. What it says is made when it is asked for. */
class ServeHandlerInfo {
  #call;
  #completed = null;

  constructor(call) {
    this.#call = call;
  }

  get remoteAddr() {
    return { transport: "tcp", hostname: peerOf(this.#call.request), port: 0 };
  }

  /** Settles when the answer is complete. */
  get completed() {
    return this.#completed ??= new Promise((resolve) => {
      if (this.#call.isConcluded) resolve();
      else this.#call.onConcluded = resolve;
    });
  }
}

/** `Deno.serve(handler)` */
export function callDenoServe(call, { serve }) {
  call.webRequest = makeRequest(call);
  const args = [call.webRequest, new ServeHandlerInfo(call)];
  if (serve.onError !== undefined) return callWithOnError(serve, args);
  return ReflectApply(serve.handler, undefined, args);
}

async function callWithOnError(serve, args) {
  try {
    return await ReflectApply(serve.handler, undefined, args);
  } catch (error) {
    return await serve.onError(error);
  }
}
