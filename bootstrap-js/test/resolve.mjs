// Module hooks of engine.mjs.

const ENGINE = "data:text/javascript,export const { core, primordials } = globalThis.engineForTests;";

export function resolve(specifier, context, next) {
  if (specifier === "ext:core/mod.js") return { url: ENGINE, shortCircuit: true };
  const own = "ext:cloudserve/";
  if (!specifier.startsWith(own)) return next(specifier, context);
  return { url: new URL(`../${specifier.slice(own.length)}`, import.meta.url).href, shortCircuit: true };
}
