// V8 wakes `Atomics.waitAsync` up by a delayed task of its own. Nothing tells the host that there
// is one: it runs what V8 has put off whenever the event loop turns. A timer turns it in time.

import { core, primordials } from "ext:core/mod.js";

const { setTimeout } = core.loadExtScript("ext:deno_web/02_timers.js");
const { MathMax, NumberIsFinite, ReflectApply } = primordials;

const { Atomics } = globalThis;
const { waitAsync } = Atomics;

function nothing() {}

/** `Atomics.waitAsync`, whose time-outs come true in a process that does nothing else. */
Atomics.waitAsync = {
  waitAsync(typedArray, index, value, timeout) {
    const result = ReflectApply(waitAsync, Atomics, arguments);
    if (result.async && NumberIsFinite(timeout)) setTimeout(nothing, MathMax(0, timeout) + 1);
    return result;
  },
}.waitAsync;
