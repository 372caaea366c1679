// Which of a module's exports is the handler. The first form that matches wins, so the choice
// does not depend on the order of exports.

import { primordials } from "ext:core/mod.js";
import { registeredServer } from "ext:cloudserve/google.js";
import { codeOf } from "ext:cloudserve/source.js";

const {
  ArrayIsArray,
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  FunctionPrototypeToString,
  ObjectGetPrototypeOf,
  ObjectHasOwn,
  ObjectKeys,
  ObjectPrototype,
  ReflectApply,
  RegExpPrototypeExec,
  RegExpPrototypeTest,
  SafeRegExp,
  StringPrototypeIndexOf,
  StringPrototypeReplaceAll,
  StringPrototypeSlice,
  StringPrototypeStartsWith,
  StringPrototypeTrim,
  SymbolFor,
} = primordials;

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** How AWS's runtime marks what `awslambda.streamifyResponse` was given. */
export const STREAMING = SymbolFor("aws.lambda.runtime.handler.streaming");

const BARE_PARAMETER = new SafeRegExp(/^\s*(?:async\s+)?([\w$]+)\s*=>/);
const NAME = new SafeRegExp(/^[\w$]*/);
/**
 * A function that calls its second parameter so is a listener of `node:http`. Behind the name may be a
 * number: a bundle has one there if another module has a variable of the same name.
 */
const LISTENER = new SafeRegExp(/^(?:_?resp?|_?response|outgoing)\d*$/);
/** A function that calls its first parameter so takes a `Request`, if it uses it as one. */
const REQUEST = new SafeRegExp(/^_?req(?:uest)?\d*$/);
/** That parameter: a name by itself, or behind the dots of `...`. */
const PARAMETER = "(?<![\\w$]|(?<!\\.\\.)\\.)NAME(?![\\w$])";
/** The brace of a pattern that takes it apart. */
const APART = "\\{(?=[^{}]*\\}\\s*=\\s*NAME(?![\\w$]|\\s*(?:\\?\\.|[.[(])))";
/** What a `Request` has and an event has not, and who takes a `Request`. */
const REQUEST_USE = [
  `${PARAMETER}\\s*\\.\\s*(?:json|text|arrayBuffer|blob|bytes|formData|clone)\\s*\\(`,
  `${PARAMETER}\\s*\\.\\s*headers\\s*\\.\\s*(?:get|has|forEach|entries|keys|values)\\s*\\(`,
  "(?:\\bfromEntries\\s*\\(|\\bof\\b|\\[\\s*\\.\\.\\.)\\s*NAME\\s*\\.\\s*headers\\b(?!\\s*[.?[])",
  `${PARAMETER}\\s*\\.\\s*url\\b`,
  // What has the body as well may be an event's, whose body is no stream.
  `${APART}(?![^{}]*\\bbody\\b)(?:[^{}]*,)?\\s*url\\b`,
  "(?<![\\w$])(?:fetch|new\\s+Request)\\s*\\(\\s*NAME\\s*[,)]",
].join("|");
const OF_EVENTS = "query|path|rawBody|rawQueryString|queryStringParameters|pathParameters|" +
  "requestContext|isBase64Encoded|httpMethod|cookies";
const BODY = `${PARAMETER}\\s*\\??\\.\\s*body`;
/**
 * What an event has and a `Request` has not, or a body that is no stream: who uses that as well takes
 * an event.
 */
const EVENT_USE = [
  `${PARAMETER}\\s*\\??\\.\\s*(?:${OF_EVENTS})\\b`,
  `${APART}(?:[^{}]*,)?\\s*(?:${OF_EVENTS})\\b`,
  `${BODY}\\s*\\??\\.\\s*(?!(?:getReader|pipeThrough|pipeTo|tee|cancel|locked|values)\\b)`,
  `${BODY}\\s*(?:\\[|(?:\\|\\||\\?\\?)\\s*\\{)`,
  `\\}\\s*=\\s*${BODY}\\b`,
  `\\bJSON\\s*\\.\\s*parse\\s*\\(\\s*${BODY}\\b`,
].join("|");
/** The same of a pattern that takes no more than a `Request` has: an event has no `url`. */
const PATTERN = new SafeRegExp(
  /^\{\s*(?:(?:method|url|headers|body|signal)\s*(?::\s*[\w$]+\s*)?(?:,\s*|(?=\})))+\}$/,
);
const URL_TAKEN = new SafeRegExp(/[{,]\s*url\b/);
/** Callback or context without a parameter for it: alone, or with all that was given. */
const PASSED_ON = new SafeRegExp(
  /\barguments\s*\[\s*(?:[12]|[A-Za-z_$][\w$]*)\s*\]|(?:\.\.\.|\bapply\s*\([^;]*?,|\bslice\.call\s*\(|\bArray\.from\s*\()\s*arguments\b/,
);

/** A pattern that has of the context what answers, or all of it. */
const TAKEN_APART = new SafeRegExp(/\b(?:succeed|fail|done)\b|\.\.\./);

/** Functions of no parameter, or of one that is a name or a pattern of names. */
const FEW_PARAMETERS = new SafeRegExp(
  /^\s*(?:(?:async\b\s*)?(?:function\b\s*)?[\w$]*\s*\(\s*(?:([\w$]+|\{[\w$\s,:]*\})\s*,?\s*)?\)|(?:async\s+)?([\w$]+)\s*=>)/,
);
/** How a function gets at what it has no parameter for. Of one that shows no code, nothing is known. */
const OTHER_WAYS = new SafeRegExp(/\b(?:arguments|eval)\b|\\u|\[native code\]/);

const isFunction = (value) => typeof value === "function";
const hasProperties = (value) =>
  (typeof value === "object" && value !== null) || isFunction(value);

/**
 * `{kind, ...}` with what the form of that kind needs, or null when nothing fits. `captured` is
 * what the module did while it was evaluated: `Deno.serve`, `listen`, `addEventListener("fetch")`.
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
    (captured.fetch === null ? constant(own) : { kind: "fetch", fetch: captured.fetch });
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

/**
 * What is called for a request: an app of a framework, a listener, a function of a `Request`, or
 * `(event, context)`.
 */
function calledFunction(candidate) {
  if (!hasProperties(candidate)) return null;
  const app = appListener(candidate);
  if (app !== null) return app;
  if (!isFunction(candidate)) return null;
  const text = FunctionPrototypeToString(candidate);
  const source = codeOf(text);
  const parameters = parametersOf(source);
  const second = parameters.length < 2 ? "" : RegExpPrototypeExec(NAME, parameters[1])[0];
  if (RegExpPrototypeTest(LISTENER, second)) return { kind: "listener", listener: candidate };
  if (parameters.length > 0 && takesRequest(parameters[0], source)) {
    const fetch = (request, _env, ctx) => ReflectApply(candidate, undefined, [request, ctx]);
    return { kind: "fetch", fetch };
  }
  const answersLater = candidate.length >= 3 || parameters.length >= 3 || hasRest(parameters) ||
    RegExpPrototypeTest(PASSED_ON, source) ||
    (second === "" ? takesAnswers(candidate, parameters) : answersBy(second, source));
  return { kind: "event", handler: candidate, answersLater, sees: seenBy(candidate, text, source) };
}

/** How many of `(event, context, callback)` a handler can see: nothing else need be made. */
function seenBy(candidate, text, source) {
  const few = RegExpPrototypeExec(FEW_PARAMETERS, source);
  // Code that is not strict may ask the function for what it was given last.
  if (few === null || RegExpPrototypeTest(OTHER_WAYS, text) || ObjectHasOwn(candidate, "arguments")) {
    return 3;
  }
  return few[1] === undefined && few[2] === undefined ? 0 : 1;
}

/** The parameters of a function, as its source has them. */
function parametersOf(source) {
  const bare = RegExpPrototypeExec(BARE_PARAMETER, source);
  if (bare !== null) return [bare[1]];
  const parameters = [];
  let depth = 0;
  let from = StringPrototypeIndexOf(source, "(") + 1;
  for (let at = from; at < source.length; at++) {
    const char = source[at];
    if (depth === 0 && (char === "," || char === ")")) {
      const parameter = StringPrototypeTrim(StringPrototypeSlice(source, from, at));
      if (parameter !== "") ArrayPrototypePush(parameters, parameter);
      if (char === ")") break;
      from = at + 1;
    } else if (char === "(" || char === "[" || char === "{") {
      depth += 1;
    } else if (char === ")" || char === "]" || char === "}") {
      depth -= 1;
    }
  }
  return parameters;
}

function hasRest(parameters) {
  const count = parameters.length;
  return count > 0 && StringPrototypeStartsWith(parameters[count - 1], "...");
}

/** As Netlify, Vercel's edge and others call a default export. */
function takesRequest(parameter, source) {
  if (RegExpPrototypeTest(PATTERN, parameter)) return RegExpPrototypeTest(URL_TAKEN, parameter);
  const name = RegExpPrototypeExec(NAME, parameter)[0];
  const isUsed = (use) =>
    RegExpPrototypeTest(new SafeRegExp(StringPrototypeReplaceAll(use, "NAME", name)), source);
  return RegExpPrototypeTest(REQUEST, name) && isUsed(REQUEST_USE) && !isUsed(EVENT_USE);
}

/** Whether a handler whose second parameter has no name may answer by what it is given there. */
function takesAnswers(candidate, parameters) {
  // Of functions that are bound or behind a proxy nothing is known but their length.
  if (parameters.length === 0) return candidate.length >= 2;
  return parameters.length >= 2 && RegExpPrototypeTest(TAKEN_APART, parameters[1]);
}

/**
 * Whether a handler may answer by the context of this name, maybe later than it returns: it names
 * what answers, or the context goes on to somebody, be it under another name.
 */
function answersBy(name, source) {
  const escaped = StringPrototypeReplaceAll(name, "$", "\\$&");
  const own = `(?<![\\w$]|(?<!\\.\\.)\\.)${escaped}(?![\\w$])`;
  const parameter = RegExpPrototypeExec(new SafeRegExp(own), source);
  if (parameter === null) return false;
  const rest = StringPrototypeSlice(source, parameter.index + name.length);
  // Taken apart by other names, it goes on to nobody.
  const apart = "(?<!\\{(?:(?!\\b(?:succeed|fail|done)\\b|\\.\\.\\.)[^{}])*\\}\\s*=\\s*)";
  const use = `${apart}${own}\\s*(?:(?:\\?\\.|\\.)\\s*(?:succeed|fail|done)\\b|(?!\\s|\\?\\.|\\.|:))`;
  return RegExpPrototypeTest(new SafeRegExp(use), rest);
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
  return value === undefined || isCode(value) ? null : { kind: "constant", value };
}

/** `module.exports` of a CommonJS module that exported nothing, or functions of other names. */
function isCode(value) {
  if (
    typeof value !== "object" || value === null || ArrayIsArray(value) ||
    ObjectGetPrototypeOf(value) !== ObjectPrototype
  ) return false;
  if (isFunction(value.toJSON)) return false;
  const names = ObjectKeys(value);
  for (let i = 0; i < names.length; i++) {
    if (isFunction(value[names[i]])) return true;
  }
  return names.length === 0;
}
