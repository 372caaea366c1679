// Which of a module's exports is the handler. The first form that matches wins, so the choice
// does not depend on the order of exports.

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const isObject = (value) => typeof value === "object" && value !== null;
const isFunction = (value) => typeof value === "function";

/**
 * `{kind: "fetch" | "methods" | "event" | "constant", ...}` or null when nothing is exported.
 * A CommonJS module arrives as the `default` of the bundle, and a transpiled ES module as that
 * one's `default`, so both are looked into.
 */
export function chooseHandler(namespace) {
  const own = namespace.default;
  const inner = isObject(own) || isFunction(own) ? own.default : undefined;
  const places = [namespace, own, inner].filter((p) => isObject(p) || isFunction(p));

  for (const place of [own, inner]) {
    if ((isObject(place) || isFunction(place)) && isFunction(place.fetch)) {
      return { kind: "fetch", fetch: place.fetch.bind(place) };
    }
  }
  for (const place of places) {
    const methods = new Map();
    for (const method of METHODS) {
      if (isFunction(place[method])) methods.set(method, place[method]);
    }
    if (methods.size > 0) return { kind: "methods", methods };
  }
  for (const candidate of [own, inner, ...places.map((place) => place.handler)]) {
    if (isFunction(candidate)) return { kind: "event", handler: candidate };
  }
  // `default` of an empty CommonJS module is an empty object: nothing was exported.
  const isEmpty = isObject(own) && !Array.isArray(own) && Object.keys(own).length === 0 &&
    Object.getPrototypeOf(own) === Object.prototype;
  if (own !== undefined && !isEmpty) return { kind: "constant", value: inner ?? own };
  return null;
}

/** The methods to name in `Allow`. */
export function allowedMethods(methods) {
  const allowed = [...methods.keys()];
  if (methods.has("GET") && !methods.has("HEAD")) allowed.push("HEAD");
  return allowed.join(", ");
}
