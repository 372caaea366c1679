import assert from "node:assert/strict";
import { test } from "node:test";

const UV_EBADF = -9;

class Pipe {
  open(fd) {
    return this instanceof Pipe ? `opened ${fd}` : "opened by nobody";
  }
}
class TCP extends Pipe {}
Object.defineProperty(TCP.prototype, "open", { ...Object.getOwnPropertyDescriptor(Pipe.prototype, "open") });
class TTY {}
const ttyWrap = { TTY };
const scripts = {
  "ext:deno_node/internal_binding/pipe_wrap.ts": { Pipe },
  "ext:deno_node/internal_binding/tcp_wrap.ts": { TCP },
  "ext:deno_node/internal_binding/tty_wrap.ts": ttyWrap,
  "ext:deno_node/internal_binding/uv.ts": { UV_EBADF },
};
globalThis.engineForTests.core.loadExtScript = (name) => scripts[name];
await import("ext:cloudserve/descriptors.js");

test("handles open standard streams and no other descriptor", () => {
  for (const Handle of [Pipe, TCP]) {
    const handle = new Handle();
    for (const fd of [0, 1, 2]) assert.equal(handle.open(fd), `opened ${fd}`);
    for (const fd of [3, 64, -1, 1.5, 2 ** 32, "0", null, undefined, { valueOf: () => 0 }]) {
      assert.equal(handle.open(fd), UV_EBADF);
    }
  }
});

test("nothing brings back what was there before", () => {
  for (const { prototype } of [Pipe, TCP]) {
    const { open } = prototype;
    assert.throws(() => (prototype.open = () => 0), TypeError);
    assert.throws(() => Object.defineProperty(prototype, "open", { value: () => 0 }), TypeError);
    assert.throws(() => delete prototype.open, TypeError);
    assert.equal(prototype.open, open);
    assert.equal(open.call(new Pipe(), 3), UV_EBADF);
  }
});

test("nobody gets at the class of terminals", () => {
  assert.equal(ttyWrap.TTY, undefined);
  assert.equal(new TTY().constructor, Object);
  assert.throws(() => (TTY.prototype.constructor = TTY), TypeError);
});
