import assert from "node:assert/strict";
import { test } from "node:test";
import { explainFetchErrors } from "ext:cloudserve/fetch_errors.js";

/** What is thrown when the engine's `fetch` throws this. */
async function thrownFor(error) {
  const global = { fetch: () => Promise.reject(error) };
  explainFetchErrors(global);
  return await global.fetch("http://h/").then(assert.fail, (thrown) => thrown);
}

const failed = (message) => new TypeError("fetch failed", { cause: new Error(message) });

test("the cause of a failed fetch has Node's code", async () => {
  const connecting = "error sending request for url (http://h/): client error (Connect): ";
  for (const [message, expected] of [
    [
      `${connecting}tcp connect error: Connection refused (os error 111)`,
      { errno: -111, code: "ECONNREFUSED", syscall: "connect" },
    ],
    ["Connection reset by peer (os error 104)", { errno: -104, code: "ECONNRESET", syscall: "read" }],
    [
      `${connecting}dns error: failed to lookup address information: Name or service not known`,
      { code: "ENOTFOUND", syscall: "getaddrinfo" },
    ],
    [
      `${connecting}dns error: failed to lookup address information: Temporary failure in name resolution`,
      { code: "EAI_AGAIN", syscall: "getaddrinfo" },
    ],
    [
      "client error (SendRequest): connection closed before message completed",
      { code: "UND_ERR_SOCKET" },
    ],
    [
      `${connecting}invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))`,
      { code: "DEPTH_ZERO_SELF_SIGNED_CERT" },
    ],
    [
      `${connecting}invalid peer certificate: certificate expired: verification time 2 (UNIX)`,
      { code: "CERT_HAS_EXPIRED" },
    ],
    [
      `${connecting}invalid peer certificate: certificate not valid for name "h"`,
      { code: "ERR_TLS_CERT_ALTNAME_INVALID" },
    ],
    ["Too many open files (os error 24)", {}],
    ["something else", {}],
  ]) {
    const error = failed(message);
    assert.equal(await thrownFor(error), error);
    assert.deepEqual({ ...error.cause }, expected, message);
    assert.equal(error.cause.message, message);
  }
});

test("what is not the engine's is left as it is", async () => {
  const own = Object.assign(new Error("x (os error 111)"), { code: "MINE" });
  for (const error of [undefined, "text", new Error("aborted", { cause: own }), Object.freeze(failed("x"))]) {
    assert.equal(await thrownFor(error), error);
  }
  assert.deepEqual({ ...own }, { code: "MINE" });
  const frozen = new TypeError("fetch failed", { cause: Object.freeze(new Error("(os error 111)")) });
  assert.equal(await thrownFor(frozen), frozen);
});

test("fetch takes and gives what it did", async () => {
  const global = { fetch: async (...args) => args };
  explainFetchErrors(global);
  assert.deepEqual(await global.fetch(1, 2), [1, 2]);
  assert.deepEqual(await global.fetch(1), [1]);
  assert.deepEqual([global.fetch.name, global.fetch.length], ["fetch", 1]);
});
