// Why `fetch` has failed. The engine says it in its own words; what is made for Node looks for a code
// at the cause, by which it tries again or not.

import { primordials } from "ext:core/mod.js";

const {
  NumberParseInt,
  ObjectDefineProperty,
  ReflectApply,
  RegExpPrototypeExec,
  RegExpPrototypeTest,
  SafeRegExp,
} = primordials;

const OF_THE_SYSTEM = new SafeRegExp(/\(os error (\d+)\)$/);
const CONNECTING = new SafeRegExp(/\bconnect error: /);

/** What the system says of connections, by its numbers. */
const CODES = {
  __proto__: null,
  1: "EPERM",
  13: "EACCES",
  32: "EPIPE",
  101: "ENETUNREACH",
  103: "ECONNABORTED",
  104: "ECONNRESET",
  110: "ETIMEDOUT",
  111: "ECONNREFUSED",
  113: "EHOSTUNREACH",
};

/** What others say. The first that is met counts. */
const WORDS = [
  [/\bdns error: .*temporary failure/i, { code: "EAI_AGAIN", syscall: "getaddrinfo" }],
  [/\bdns error: /, { code: "ENOTFOUND", syscall: "getaddrinfo" }],
  [/\bconnection closed before message completed/, { code: "UND_ERR_SOCKET" }],
  [/\bpeer certificate: .*UnknownIssuer/, { code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" }],
  [/\bpeer certificate: .*CaUsedAsEndEntity/, { code: "DEPTH_ZERO_SELF_SIGNED_CERT" }],
  [/\bpeer certificate: .*expired/i, { code: "CERT_HAS_EXPIRED" }],
  [/\bpeer certificate: .*not ?valid ?for ?name/i, { code: "ERR_TLS_CERT_ALTNAME_INVALID" }],
];
for (let i = 0; i < WORDS.length; i++) WORDS[i][0] = new SafeRegExp(WORDS[i][0]);

/** What Node's error would have beside its message; undefined if that is not known. */
function detailsOf(message) {
  const number = RegExpPrototypeExec(OF_THE_SYSTEM, message)?.[1];
  if (number !== undefined) {
    const code = CODES[number];
    if (code === undefined) return undefined;
    const syscall = RegExpPrototypeTest(CONNECTING, message) ? "connect" : "read";
    return { errno: -NumberParseInt(number, 10), code, syscall };
  }
  for (let i = 0; i < WORDS.length; i++) {
    if (RegExpPrototypeTest(WORDS[i][0], message)) return WORDS[i][1];
  }
}

/** Tells the cause of an error of `fetch` what it is, if it is the engine's. */
function explain(error) {
  const cause = error?.cause;
  if (typeof cause?.message !== "string" || cause.code !== undefined) return;
  const details = detailsOf(cause.message);
  for (const name in details) {
    ObjectDefineProperty(cause, name, {
      __proto__: null,
      value: details[name],
      writable: true,
      enumerable: true,
      configurable: true,
    });
  }
}

/** `fetch`, whose errors say what they are. */
export function explainFetchErrors(global) {
  const engineFetch = global.fetch;
  global.fetch = {
    async fetch(_input, _init = undefined) {
      try {
        return await ReflectApply(engineFetch, this, arguments);
      } catch (error) {
        try {
          explain(error);
        } catch {
          // It is somebody's own, who does not want it looked at.
        }
        throw error;
      }
    },
  }.fetch;
}
