// Which of a module's exports is the handler. The first form that matches wins, so the choice
// does not depend on the order of exports.

import { primordials } from "ext:core/mod.js";
import { registeredServer } from "ext:cloudserve/google.js";

const {
  ArrayIsArray,
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  FunctionPrototypeToString,
  ObjectGetPrototypeOf,
  ObjectKeys,
  ObjectPrototype,
  ReflectApply,
  RegExpPrototypeTest,
  SafeRegExp,
  SymbolFor,
} = primordials;

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** How AWS's runtime marks what `awslambda.streamifyResponse` was given. */
export const STREAMING = SymbolFor("aws.lambda.runtime.handler.streaming");

/** How the source of a function begins, arrows with one bare parameter aside. */
const BEGIN = "^(?:async\\s+)?(?:function\\s*)?[\\w$]*\\s*\\(";
const PARAMETER =
  "(?:[^,()[\\]{}]|\\([^()]*\\)|\\[[^[\\]]*\\]|\\{(?:[^{}]|\\{[^{}]*\\})*\\})*";

/** A function that calls its second parameter `res` is a listener of `node:http`. */
const LISTENER = new SafeRegExp(
  `${BEGIN}\\s*(?:[\\w$]+|\\{[^{}()]*\\})\\s*,\\s*(?:_?res|response)\\b`,
);
/** A third parameter, or a rest, of which `length` does not tell. */
const MORE_PARAMETERS = new SafeRegExp(
  `${BEGIN}(?:(?:${PARAMETER},){2}\\s*[^\\s)]|(?:${PARAMETER},)?\\s*\\.\\.\\.)`,
);
/** The callback by another way, and what the context has in its place. */
const OTHER_CALLBACK = new SafeRegExp(/\barguments\b|\.(?:succeed|fail)\b|\.done\s*\(/);

const isFunction = (value) => typeof value === "function";
const hasProperties = (value) =>
  (typeof value === "object" && value !== null) || isFunction(value);

/**
 * `{kind, ...}` with what the form of that kind needs, or null when nothing fits. `captured` is
 * what the module did while it was evaluated: `Deno.serve`, `listen`.
 *
 * A CommonJS module arrives as the `default` of the bundle, and a transpiled ES module as the
 * `default` of that one, so both are looked into.
 */
export function chooseHandler(namespace, captured) {
  if (captured.serve !== null) return { kind: "deno-serve", serve: captured.serve };
  const server = captured.server ?? registeredServer();
  if (server !== null) return { kind: "server", server };
  const own = namespace.default;
  const inner = hasProperties(own) ? own.default : undefined;
  const functions = [own, inner, namespace.handler, own?.handler, inner?.handler];
  return fetchObject(own) ?? fetchObject(inner) ??
    methodFunctions(namespace) ?? methodFunctions(own) ?? methodFunctions(inner) ??
    first(functions, streamFunction) ??
    first(functions, calledFunction) ??
    first([namespace.main, own?.main, inner?.main], mainFunction) ??
    constant(own);
}

function first(candidates, form) {
  for (let i = 0; i < candidates.length; i++) {
    const found = form(candidates[i]);
    if (found !== null) return found;
  }
  return null;
}

function fetchObject(place) {
  if (!hasProperties(place) || !isFunction(place.fetch)) return null;
  const { fetch } = place;
  return { kind: "fetch", fetch: (...args) => ReflectApply(fetch, place, args) };
}

function methodFunctions(place) {
  if (!hasProperties(place)) return null;
  const methods = { __proto__: null };
  const allowed = [];
  for (let i = 0; i < METHODS.length; i++) {
    const name = METHODS[i];
    if (!isFunction(place[name])) continue;
    methods[name] = place[name];
    ArrayPrototypePush(allowed, name);
  }
  if (allowed.length === 0) return null;
  if (methods.GET !== undefined && methods.HEAD === undefined) {
    methods.HEAD = methods.GET;
    ArrayPrototypePush(allowed, "HEAD");
  }
  return { kind: "methods", methods, allow: ArrayPrototypeJoin(allowed, ", ") };
}

function streamFunction(candidate) {
  if (!isFunction(candidate) || candidate[STREAMING] === undefined) return null;
  return { kind: "lambda-stream", handler: candidate };
}

/** What is called for a request: an app of a framework, a listener, or `(event, context)`. */
function calledFunction(candidate) {
  if (!hasProperties(candidate)) return null;
  const app = appListener(candidate);
  if (app !== null) return app;
  if (!isFunction(candidate)) return null;
  const source = FunctionPrototypeToString(candidate);
  if (RegExpPrototypeTest(LISTENER, source)) return { kind: "listener", listener: candidate };
  const answersLater = candidate.length >= 3 || RegExpPrototypeTest(MORE_PARAMETERS, source) ||
    RegExpPrototypeTest(OTHER_CALLBACK, source);
  return { kind: "event", handler: candidate, answersLater };
}

/**
 * What frameworks make, by what they have: Express and Connect a function with `use` and `handle`,
 * Koa an object with `callback()`, Fastify one with `ready()` and `routing`, Polka and Restana one
 * with `handler` or `handle`, Node a server that does not listen yet.
 */
function appListener(app) {
  const has = (name) => isFunction(app[name]);
  if (isFunction(app)) {
    if (!has("use") || !has("handle")) return null;
    return { kind: "app", listener: app };
  }
  if (has("emit") && has("listen") && has("listenerCount") && has("close")) {
    return { kind: "app", server: app };
  }
  if (has("callback") && has("use") && has("listen")) {
    return { kind: "app", listener: app.callback() };
  }
  if (has("ready") && has("routing") && has("inject")) {
    return { kind: "app", ready: () => app.ready(), listener: (req, res) => app.routing(req, res) };
  }
  if (has("use") && has("listen") && (has("handler") || has("handle"))) {
    const handle = has("handler") ? app.handler : app.handle;
    return { kind: "app", listener: (...args) => ReflectApply(handle, app, args) };
  }
  return null;
}

function mainFunction(candidate) {
  return isFunction(candidate) ? { kind: "main", main: candidate } : null;
}

function constant(own) {
  const value = own?.__esModule ? own.default : own;
  return value === undefined || isEmptyExports(value) ? null : { kind: "constant", value };
}

/** `module.exports` of a CommonJS module that exported nothing. */
function isEmptyExports(value) {
  return typeof value === "object" && value !== null && !ArrayIsArray(value) &&
    ObjectGetPrototypeOf(value) === ObjectPrototype && ObjectKeys(value).length === 0;
}
