import assert from "node:assert/strict";
import { test } from "node:test";

const scripts = {
  "ext:deno_node/internal/errors.ts": {
    errnoException: (errno, syscall) => Object.assign(new Error(syscall), { errno, syscall }),
  },
  "ext:deno_node/internal_binding/uv.ts": { codeMap: new Map([["EPERM", -1]]) },
};
globalThis.engineForTests.core.loadExtScript = (name) => scripts[name];
const { completeProcess } = await import("ext:cloudserve/process.js");
const process = {};
completeProcess(process);

test("what can be held is held and let go by its own method", () => {
  for (const name of ["ref", "unref"]) {
    for (const key of [name, Symbol.for(`node:${name}`), Symbol.for(`nodejs.${name}`)]) {
      const told = [];
      const object = { [name]: () => told.push("plain") };
      object[key] = function () {
        told.push(this === object && key);
      };
      process[name](object);
      assert.deepEqual(told, [key]);
    }
    for (const other of [undefined, null, 1, {}, { [name]: 1 }]) process[name](other);
  }
});

test("groups cannot be set", () => {
  for (const syscall of ["initgroups", "setgroups"]) {
    assert.throws(() => process[syscall]([0], 0), { errno: -1, syscall });
  }
});
