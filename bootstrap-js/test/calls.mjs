// Calls without the engine: a `Call` over a host that writes down what it is told.

import { Call } from "ext:cloudserve/call.js";

const CREDIT = 256 * 1024;

export const settings = {
  functionName: "f",
  functionVersion: "1",
  ownerName: "o",
  memoryMb: 128,
  eventFormat: "parsed",
  env: {},
};

/** A call and what became of it. */
export function makeCall({ method = "GET", target = "/", headers = [], body = null, end = true } = {}) {
  const got = { status: 0, headers: [], pieces: [], ended: false, isWhole: false, logs: [] };
  const host = {
    answer(_id, status, headers, body) {
      Object.assign(got, { status, headers, ended: true, isWhole: true });
      if (body !== null) got.pieces.push(Buffer.from(body));
    },
    head: (_id, status, headers) => void Object.assign(got, { status, headers }),
    chunk(_id, bytes, end) {
      if (bytes.length > 0) got.pieces.push(Buffer.from(bytes));
      got.ended ||= end;
      call.grant(bytes.length);
    },
    trailers(_id, trailers) {
      Object.assign(got, { trailers, ended: true });
    },
    credit() {},
    fill: (_id, whole, at) => void Object.assign(got, { filling: whole, filledTo: at }),
    filled: () => got.filledTo,
    log: (_level, text) => void got.logs.push(text),
  };
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const request = { executionId: "id", method, target, headers, body: bytes, end };
  const call = new Call(host, 1, request, 5_000, CREDIT);
  got.text = () => Buffer.concat(got.pieces).toString();
  got.header = (name) => got.headers.filter((_, i) => i % 2 === 1 && got.headers[i - 1] === name);
  return { call, got };
}
