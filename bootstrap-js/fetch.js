// Forms that take a `Request`: `Deno.serve`, `export default { fetch }`, `export function GET`.

import { primordials } from "ext:core/mod.js";
import { makeRequest, peerOf } from "ext:cloudserve/request.js";

const { Promise, PromiseResolve, ReflectApply } = primordials;
const { Response } = globalThis;

/** `export default { fetch(request, env, ctx) }` */
export function callFetch(call, handler, settings) {
  call.webRequest = makeRequest(call);
  return handler.fetch(call.webRequest, settings.env, {
    waitUntil: (promise) => call.waitUntil(promise),
    passThroughOnException() {},
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
  return ReflectApply(method, undefined, [call.webRequest, {
    params: PromiseResolve({}),
    env: settings.env,
    waitUntil: (promise) => call.waitUntil(promise),
  }]);
}

/** `Deno.serve(handler)` */
export async function callDenoServe(call, { serve }) {
  call.webRequest = makeRequest(call);
  let complete;
  const completed = new Promise((resolve) => {
    complete = resolve;
  });
  call.onDone = complete;
  const remoteAddr = { transport: "tcp", hostname: peerOf(call.request), port: 0 };
  try {
    return await ReflectApply(serve.handler, undefined, [call.webRequest, { remoteAddr, completed }]);
  } catch (error) {
    if (serve.onError === undefined) throw error;
    return await serve.onError(error);
  }
}
