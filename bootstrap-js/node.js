// Node's globals and its `process`. They are made once, in a process that may be forked for every
// worker; each worker has ids and a clock of its own.

import { core, internals, primordials } from "ext:core/mod.js";

const { setTimeOrigin } = core.loadExtScript("ext:deno_web/15_performance.js");
const { ObjectDefineProperty } = primordials;
const { nodeBootstrap } = globalThis;
delete globalThis.nodeBootstrap;

const TOLD = { __proto__: null };

let programPath;

function showAsDeno(value) {
  ObjectDefineProperty(globalThis, "Deno", { __proto__: null, value });
}

/**
 * `node:process` prepares itself when it is evaluated, but that was while the snapshot was made.
 * `Deno` remembers the process id from when it is first asked, so it is not asked here.
 */
export function startNode() {
  const { Deno } = globalThis;
  programPath = Deno.execPath();
  showAsDeno({ __proto__: Deno, pid: 0, ppid: 0 });
  nodeBootstrap(internals.__nodeBootstrapArgs);
  showAsDeno(Deno);
}

/**
 * The ids that `node:process` exports are set by nothing but the function that prepares all of it.
 * What that does before it asks for them can be done twice; what comes after them begins with the
 * path of the program, and is not reached.
 */
export function settleNode() {
  const { Deno } = globalThis;
  setTimeOrigin();
  let isTold = false;
  showAsDeno({
    __proto__: null,
    build: { __proto__: null, os: Deno.build.os, standalone: true },
    pid: Deno.pid,
    get ppid() {
      isTold = true;
      return Deno.ppid;
    },
    execPath() {
      if (isTold) throw TOLD;
      return programPath;
    },
  });
  internals.__nodeProcessBootstrapped = false;
  try {
    internals.__bootstrapNodeProcess("", [], {}, "", false, true);
  } catch (error) {
    if (error !== TOLD) throw error;
  }
  showAsDeno(Deno);
}
