// Which of a module's exports is the handler. The first form that matches wins, so the choice
// does not depend on the order of exports.

import { primordials } from "ext:core/mod.js";

const {
  ArrayIsArray,
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  ObjectGetPrototypeOf,
  ObjectKeys,
  ObjectPrototype,
  ReflectApply,
} = primordials;

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const isFunction = (value) => typeof value === "function";
const hasProperties = (value) =>
  (typeof value === "object" && value !== null) || isFunction(value);

/**
 * `{kind: "fetch" | "methods" | "event" | "constant", ...}`, or null when nothing fits.
 *
 * A CommonJS module arrives as the `default` of the bundle, and a transpiled ES module as the
 * `default` of that one, so both are looked into.
 */
export function chooseHandler(namespace) {
  const own = namespace.default;
  const inner = hasProperties(own) ? own.default : undefined;
  return fetchObject(own) ?? fetchObject(inner) ??
    methodFunctions(namespace) ?? methodFunctions(own) ?? methodFunctions(inner) ??
    eventFunction(own) ?? eventFunction(inner) ??
    eventFunction(namespace.handler) ?? eventFunction(own?.handler) ??
    eventFunction(inner?.handler) ??
    constant(own);
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

function eventFunction(candidate) {
  return isFunction(candidate) ? { kind: "event", handler: candidate } : null;
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
