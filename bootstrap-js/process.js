// What `process` has in Node and not in the engine.

import { core, primordials } from "ext:core/mod.js";

const { errnoException } = core.loadExtScript("ext:deno_node/internal/errors.ts");
const { codeMap } = core.loadExtScript("ext:deno_node/internal_binding/uv.ts");
const { FunctionPrototypeCall, SymbolFor } = primordials;

const UV_EPERM = codeMap.get("EPERM");

function callMethod(object, name) {
  const method = object?.[SymbolFor(`nodejs.${name}`)] ?? object?.[SymbolFor(`node:${name}`)] ??
    object?.[name];
  if (typeof method === "function") FunctionPrototypeCall(method, object);
}

export function completeProcess(process) {
  process.ref = function ref(maybeRefable) {
    callMethod(maybeRefable, "ref");
  };
  process.unref = function unref(maybeRefable) {
    callMethod(maybeRefable, "unref");
  };
  // As Node says it to whoever is not root.
  process.initgroups = function initgroups(_user, _extraGroup) {
    throw errnoException(UV_EPERM, "initgroups");
  };
  process.setgroups = function setgroups(_groups) {
    throw errnoException(UV_EPERM, "setgroups");
  };
}
