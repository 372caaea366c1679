// `WebSocketPair` of Workers: two ends, of which a handler keeps one and answers with the other.

import { primordials } from "ext:core/mod.js";

const {
  ArrayBufferIsView,
  ArrayBufferPrototype,
  ArrayBufferPrototypeSlice,
  ArrayPrototypePush,
  ArrayPrototypeShift,
  NumberIsInteger,
  ObjectDefineProperty,
  ObjectPrototypeIsPrototypeOf,
  PromisePrototypeThen,
  PromiseResolve,
  Proxy,
  ReflectConstruct,
  String,
  TypeError,
} = primordials;
const { CloseEvent, ErrorEvent, EventTarget, MessageEvent } = globalThis;

const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

/** What a close event says that came without a Close frame. */
const ABNORMAL = 1006;

let join;
let connect;
let isEnd;

/** One end: what it sends, the other hears once it has accepted. */
class PairEnd extends EventTarget {
  #other = null;
  #wire = null;
  #held = [];
  #isAccepted = false;
  #readyState = OPEN;

  static {
    join = (one, other) => {
      one.#other = other;
      other.#other = one;
    };
    connect = (end, wire) => end.#connect(wire);
    isEnd = (value) => typeof value === "object" && value !== null && #held in value;
  }

  get readyState() {
    return this.#readyState;
  }

  accept() {
    if (this.#wire !== null) throw new TypeError("this end of the WebSocketPair is the caller's");
    this.#isAccepted = true;
    this.#releaseSoon();
  }

  send(data) {
    if (!this.#isAccepted) throw new TypeError("accept() has to be called before send()");
    if (this.#readyState >= CLOSING) throw new TypeError("the WebSocket was closed");
    this.#other.#hear({ type: "message", data: copyOf(data) });
  }

  close(code, reason) {
    if (code !== undefined && !isCloseCode(code)) throw new TypeError("invalid WebSocket close code");
    if (this.#readyState >= CLOSING) return;
    this.#readyState = CLOSING;
    const text = reason === undefined ? "" : String(reason);
    this.#other.#hear({ type: "close", code: code ?? 1005, reason: text, wasClean: true });
  }

  /** From now on this end is the caller, who is at the other side of `wire`. */
  #connect(wire) {
    if (this.#isAccepted || this.#wire !== null) {
      throw new TypeError("the webSocket of a Response is an end that nobody has accepted");
    }
    this.#wire = wire;
    const other = this.#other;
    wire.addEventListener("open", () => this.#release());
    wire.addEventListener("message", ({ data }) => other.#hear({ type: "message", data }));
    wire.addEventListener("error", ({ error, message }) => {
      other.#hear({ type: "error", error, message });
    });
    wire.addEventListener("close", ({ code, reason, wasClean }) => {
      this.#readyState = CLOSED;
      other.#hear({ type: "close", code: code || ABNORMAL, reason, wasClean });
    });
  }

  #hear(event) {
    ArrayPrototypePush(this.#held, event);
    if (this.#wire === null) this.#releaseSoon();
    else this.#release();
  }

  #releaseSoon() {
    if (this.#isAccepted) PromisePrototypeThen(PromiseResolve(), () => this.#release());
  }

  #release() {
    while (this.#held.length > 0) {
      if (this.#wire === null) {
        this.#dispatch(ArrayPrototypeShift(this.#held));
      } else {
        if (this.#wire.readyState < OPEN) return;
        const { type, data, code, reason } = ArrayPrototypeShift(this.#held);
        if (type === "message") this.#wire.send(data);
        else if (code === 1005) this.#wire.close();
        else this.#wire.close(code, reason);
      }
    }
  }

  #dispatch({ type, data, error, message, code, reason, wasClean }) {
    if (type === "message") {
      this.dispatchEvent(new MessageEvent(type, { data }));
    } else if (type === "error") {
      this.dispatchEvent(new ErrorEvent(type, { error, message }));
    } else {
      this.#readyState = CLOSED;
      this.dispatchEvent(new CloseEvent(type, { code, reason, wasClean }));
    }
  }
}

function isCloseCode(code) {
  return NumberIsInteger(code) && code >= 1000 && code < 5000 &&
    code !== 1004 && code !== 1005 && code !== ABNORMAL && code !== 1015;
}

/** Text, or bytes that stay what they were. */
function copyOf(data) {
  if (ArrayBufferIsView(data)) {
    const { buffer, byteOffset, byteLength } = data;
    return ArrayBufferPrototypeSlice(buffer, byteOffset, byteOffset + byteLength);
  }
  if (typeof data === "object" && data !== null && ObjectPrototypeIsPrototypeOf(ArrayBufferPrototype, data)) {
    return ArrayBufferPrototypeSlice(data, 0);
  }
  return String(data);
}

class WebSocketPair {
  constructor() {
    this[0] = new PairEnd();
    this[1] = new PairEnd();
    join(this[0], this[1]);
  }
}

/** Whether this is what Workers give a `Response` as its `webSocket`. */
export const isPairEnd = (value) => isEnd(value);

/** Makes the end one of a real connection. */
export const connectPairEnd = (end, wire) => connect(end, wire);

/**
 * Makes `WebSocketPair` a global. When it is first asked for, by the platform if a bundle names it,
 * `Response` takes a `webSocket`: nobody else pays for that.
 */
export function offerWebSocketPair(global) {
  const define = (name, value) =>
    ObjectDefineProperty(global, name, {
      __proto__: null,
      value,
      writable: true,
      enumerable: false,
      configurable: true,
    });
  ObjectDefineProperty(global, "WebSocketPair", {
    __proto__: null,
    get() {
      define("WebSocketPair", WebSocketPair);
      define("Response", takingWebSocket(global.Response));
      return WebSocketPair;
    },
    set: (value) => void define("WebSocketPair", value),
    enumerable: false,
    configurable: true,
  });
}

function takingWebSocket(Response) {
  const taking = new Proxy(Response, {
    __proto__: null,
    construct(target, args, newTarget) {
      const response = ReflectConstruct(target, args, newTarget === taking ? target : newTarget);
      const webSocket = args[1]?.webSocket;
      if (isEnd(webSocket)) {
        ObjectDefineProperty(response, "webSocket", { __proto__: null, value: webSocket });
      }
      return response;
    },
  });
  Response.prototype.constructor = taking;
  return taking;
}
