// What calls have left open, as far as only Node's modules know it.

import { core } from "ext:core/mod.js";

const { getActiveHandles } = core.loadExtScript(
  "ext:deno_node/internal/process/active_resources.ts",
);

/** Sockets of `node:net`, and of what is built upon it, that are open. */
export function openSockets() {
  return getActiveHandles().length;
}
