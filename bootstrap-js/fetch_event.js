// `addEventListener("fetch", (event) => event.respondWith(...))`, as Workers had it before modules.

import { primordials } from "ext:core/mod.js";
import { captured } from "ext:cloudserve/capture.js";

const {
  ArrayPrototypeFilter,
  ArrayPrototypeIncludes,
  ArrayPrototypePush,
  ObjectDefineProperty,
  ReflectApply,
  TypeError,
} = primordials;
const { Event } = globalThis;

const isFunction = (value) => typeof value === "function";

let answerTo;

class FetchEvent extends Event {
  #ctx;
  #answer;
  #isOver = false;

  static {
    answerTo = (event, listeners) => event.#answerBy(listeners);
  }

  constructor(request, ctx) {
    super("fetch");
    this.request = request;
    this.#ctx = ctx;
  }

  /** Takes a `Response` or a promise of one. */
  respondWith(response) {
    if (this.#isOver) {
      throw new TypeError("event.respondWith() takes one answer, before the listener returns");
    }
    this.#isOver = true;
    this.#answer = response;
  }

  waitUntil(promise) {
    this.#ctx.waitUntil(promise);
  }

  passThroughOnException() {}

  /** The first listener that answers does; the others are not called. */
  #answerBy(listeners) {
    for (let i = 0; i < listeners.length && !this.#isOver; i++) {
      const listener = listeners[i];
      if (isFunction(listener)) ReflectApply(listener, globalThis, [this]);
      else listener.handleEvent(this);
    }
    if (!this.#isOver) {
      this.#isOver = true;
      throw new TypeError('no listener of "fetch" has called event.respondWith()');
    }
    return this.#answer;
  }
}

/** Takes over what listens for calls. All other events are the engine's. */
export function captureFetchEvents(global) {
  const { addEventListener: listen, removeEventListener: unlisten } = global;
  let listeners = [];
  const addEventListener = function addEventListener(...args) {
    const { 0: type, 1: listener } = args;
    if (type !== "fetch" || !isFunction(listener) && !isFunction(listener?.handleEvent)) {
      return ReflectApply(listen, this, args);
    }
    if (ArrayPrototypeIncludes(listeners, listener)) return;
    ArrayPrototypePush(listeners, listener);
    captured.fetch ??= (request, _env, ctx) => answerTo(new FetchEvent(request, ctx), listeners);
  };
  const removeEventListener = function removeEventListener(...args) {
    const { 0: type, 1: listener } = args;
    if (type !== "fetch" || !ArrayPrototypeIncludes(listeners, listener)) {
      return ReflectApply(unlisten, this, args);
    }
    listeners = ArrayPrototypeFilter(listeners, (other) => other !== listener);
    if (listeners.length === 0) captured.fetch = null;
  };
  define(global, "addEventListener", addEventListener);
  define(global, "removeEventListener", removeEventListener);
}

function define(global, name, value) {
  ObjectDefineProperty(global, name, {
    __proto__: null,
    value,
    writable: true,
    enumerable: false,
    configurable: true,
  });
}
