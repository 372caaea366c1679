// What was registered with Google's functions-framework: `functions.http("name", (req, res) => ...)`
// and `functions.cloudEvent(...)`. A bundle that carries it says so; its own server serves it.

import { primordials } from "ext:core/mod.js";

const { MapPrototypeGetSize, MapPrototypeHas, MapPrototypeKeys } = primordials;

/**
 * The framework's server of the function that `FUNCTION_TARGET` names or, without it, of the only
 * one. Null if nothing, or nothing certain, is registered.
 */
export function registeredServer() {
  const framework = globalThis.__cloudserve_google;
  if (framework === undefined) return null;
  const { registered, serverOf } = framework;
  let target = globalThis.process.env.FUNCTION_TARGET;
  if (target === undefined && MapPrototypeGetSize(registered) === 1) {
    target = MapPrototypeKeys(registered).next().value;
  }
  return target !== undefined && MapPrototypeHas(registered, target) ? serverOf(target) : null;
}
