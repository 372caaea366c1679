// Descriptors by their numbers. Node's handles take any that is named to them for their own, the
// platform's control socket as well. A function has its standard streams by their numbers, and what
// it opens itself by what it was given for it: `node:fs` looks numbers up in a table of those.

import { core, primordials } from "ext:core/mod.js";

const { Pipe } = core.loadExtScript("ext:deno_node/internal_binding/pipe_wrap.ts");
const { TCP } = core.loadExtScript("ext:deno_node/internal_binding/tcp_wrap.ts");
const ttyWrap = core.loadExtScript("ext:deno_node/internal_binding/tty_wrap.ts");
const { UV_EBADF } = core.loadExtScript("ext:deno_node/internal_binding/uv.ts");

const { FunctionPrototypeCall, Object, ObjectDefineProperty } = primordials;

/** For good: user code, and the engine when it exchanges the functions of a snapshot, leave it. */
function fix(prototype, name, value) {
  ObjectDefineProperty(prototype, name, {
    __proto__: null,
    value,
    writable: false,
    enumerable: false,
    configurable: false,
  });
}

function openStandardStreamsOnly(prototype) {
  const { open } = prototype;
  fix(prototype, "open", {
    open(fd) {
      return fd === 0 || fd === 1 || fd === 2 ? FunctionPrototypeCall(open, this, fd) : UV_EBADF;
    },
  }.open);
}

openStandardStreamsOnly(Pipe.prototype);
openStandardStreamsOnly(TCP.prototype);

// Making a terminal opens it. `node:tty` refuses numbers; the class itself does not.
fix(ttyWrap.TTY.prototype, "constructor", Object);
delete ttyWrap.TTY;
