// `(req, res)` functions: a listener of `node:http` whose arguments have, besides, what Vercel adds to
// them, and most of what Google's functions-framework does. `docs/API.md` lists it.

import { primordials } from "ext:core/mod.js";
import { Buffer } from "node:buffer";
import http from "node:http";
import { exchange, makeServer } from "ext:cloudserve/server.js";
import { isText, parsedBody, queryObjects, splitTarget } from "ext:cloudserve/request.js";

const {
  ArrayBufferIsView,
  Error,
  ErrorPrototype,
  JSONStringify,
  ObjectDefineProperties,
  ObjectDefineProperty,
  ObjectKeys,
  ObjectPrototypeIsPrototypeOf,
  ReflectApply,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeSplit,
  StringPrototypeToLowerCase,
  StringPrototypeTrim,
  Symbol,
  decodeURIComponent,
} = primordials;

const BODY = Symbol("body");

const TYPES = {
  __proto__: null,
  html: "text/html; charset=utf-8",
  json: "application/json; charset=utf-8",
  text: "text/plain; charset=utf-8",
};

function define(request, name, value) {
  ObjectDefineProperty(request, name, {
    __proto__: null,
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
  return value;
}

/** Made when it is asked for; from then on, or once it is set, a property like any other. */
function lazy(name, make) {
  return {
    __proto__: null,
    get() {
      return define(this, name, make(this));
    },
    set(value) {
      define(this, name, value);
    },
    enumerable: true,
    configurable: true,
  };
}

/** Of the request itself: frameworks that are handed it put a prototype of theirs under it. */
const ADDED = {
  __proto__: null,
  query: lazy("query", ({ url }) => queryObjects(splitTarget(url)[1])[0]),
  cookies: lazy("cookies", ({ headers }) => parsedCookies(headers.cookie ?? "")),
  /** The bytes of the body. */
  rawBody: lazy("rawBody", ({ socket }) => socket[BODY]),
  /** Parsed for JSON and forms, text for text, else bytes. */
  body: lazy("body", ({ rawBody, headers }) => {
    const type = headers["content-type"] ?? "";
    return rawBody !== undefined && isText(type) ? parsedBody(rawBody.toString(), type) : rawBody;
  }),
};

class ListenerRequest extends http.IncomingMessage {
  constructor(socket, options) {
    super(socket, options);
    ObjectDefineProperties(this, ADDED);
  }
  get path() {
    return splitTarget(this.url)[0];
  }
  set path(value) {
    define(this, "path", value);
  }
  get(name) {
    return this.headers[StringPrototypeToLowerCase(name)];
  }
  header(name) {
    return this.get(name);
  }
}

class ListenerResponse extends http.ServerResponse {
  status(code) {
    this.statusCode = code;
    return this;
  }
  /** A header, or an object of several. */
  set(name, value) {
    if (typeof name === "object" && name !== null) {
      const names = ObjectKeys(name);
      for (let i = 0; i < names.length; i++) this.setHeader(names[i], name[names[i]]);
    } else {
      this.setHeader(name, value);
    }
    return this;
  }
  header(name, value) {
    return this.set(name, value);
  }
  type(type) {
    return this.set("content-type", TYPES[type] ?? type);
  }
  json(value) {
    if (!this.hasHeader("content-type")) this.type("json");
    this.end(JSONStringify(value));
    return this;
  }
  send(value) {
    if (value === undefined || value === null) {
      this.end();
    } else if (ArrayBufferIsView(value)) {
      if (!this.hasHeader("content-type")) this.type("application/octet-stream");
      this.end(value);
    } else if (typeof value === "string") {
      if (!this.hasHeader("content-type")) this.type("html");
      this.end(value);
    } else {
      this.json(value);
    }
    return this;
  }
  sendStatus(code) {
    this.status(code).type("text").end(http.STATUS_CODES[code] ?? `${code}`);
    return this;
  }
  redirect(status, url) {
    if (url === undefined) return this.redirect(307, status);
    this.status(status).set("location", url).end();
    return this;
  }
}

function parsedCookies(header) {
  const cookies = {};
  const pairs = StringPrototypeSplit(header, ";");
  for (let i = 0; i < pairs.length; i++) {
    const at = StringPrototypeIndexOf(pairs[i], "=");
    if (at < 0) continue;
    const name = StringPrototypeTrim(StringPrototypeSlice(pairs[i], 0, at));
    const value = StringPrototypeTrim(StringPrototypeSlice(pairs[i], at + 1));
    try {
      cookies[name] ??= decodeURIComponent(value);
    } catch {
      cookies[name] = value;
    }
  }
  return cookies;
}

/** The server that calls the listener. What it throws is the call's error. */
export function serverForListener(listener) {
  const classes = { IncomingMessage: ListenerRequest, ServerResponse: ListenerResponse };
  return makeServer(classes, (req, res) => {
    const fail = (error) => req.socket.destroy(asError(error));
    try {
      const returned = ReflectApply(listener, undefined, [req, res]);
      if (typeof returned?.then === "function") returned.then(undefined, fail);
    } catch (error) {
      fail(error);
    }
  });
}

function asError(thrown) {
  return ObjectPrototypeIsPrototypeOf(ErrorPrototype, thrown) ? thrown : new Error(`${thrown}`);
}

/** Reads the body first, so that `req.body` is there when the listener is called. */
export async function callListener(call, { server }) {
  const body = await call.wholeBody();
  call.putBack(body);
  return exchange(call, server, (connection) => {
    if (body !== null) {
      connection[BODY] = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
    }
  });
}
