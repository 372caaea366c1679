import assert from "node:assert/strict";
import { test } from "node:test";
import { normalise, pieceOf } from "ext:cloudserve/response.js";

test("plain values", () => {
  assert.deepEqual(normalise(undefined), { status: 204, headers: [], body: null });
  assert.deepEqual(normalise("hi"), {
    status: 200,
    headers: ["content-type", "text/plain; charset=utf-8"],
    body: "hi",
  });
  for (const value of [null, 0, false, [1], { a: 1 }, { status: "open" }, { status: 200, id: 1 }]) {
    assert.deepEqual(normalise(value), {
      status: 200,
      headers: ["content-type", "application/json"],
      body: JSON.stringify(value),
    });
  }
  assert.deepEqual(normalise(new Uint16Array([258])).body, new Uint8Array([2, 1]));
  assert.throws(() => normalise(() => {}), /function, which is not a JSON value/);
  assert.throws(() => normalise(1n), TypeError);
});

test("HTTP results", () => {
  assert.deepEqual(normalise({ statusCode: 201, headers: { "X-A": 1 }, body: "b" }), {
    status: 201,
    headers: ["x-a", "1", "content-type", "text/plain; charset=utf-8"],
    body: "b",
  });
  assert.deepEqual(normalise({ statusCode: "204" }), { status: 204, headers: [], body: null });
  assert.deepEqual(normalise({ status: 200, cookies: ["a=1", "b=2"] }).headers, [
    "set-cookie",
    "a=1",
    "set-cookie",
    "b=2",
  ]);
  const json = normalise({ statusCode: 200, body: { a: 1 } });
  assert.deepEqual([json.body, json.headers[1]], ['{"a":1}', "application/json"]);
  const encoded = normalise({ statusCode: 200, body: "AQI=", isBase64Encoded: true });
  assert.deepEqual(encoded.body, new Uint8Array([1, 2]));
  const typed = normalise({ statusCode: 200, headers: { "Content-Type": "text/html" }, body: "" });
  assert.deepEqual(typed.headers, ["content-type", "text/html"]);
  const repeated = { statusCode: 200, multiValueHeaders: { a: ["1", "2"] } };
  assert.deepEqual(normalise(repeated).headers, ["a", "1", "a", "2"]);
  const both = {
    statusCode: 200,
    headers: { A: "1", "Set-Cookie": "a=1", b: 2 },
    multiValueHeaders: { a: ["1", "2"], "set-cookie": ["a=1", "b=2", "b=2"], b: ["2"], c: ["3"] },
  };
  assert.deepEqual(normalise(both).headers, [
    ...["a", "1", "set-cookie", "a=1", "b", "2"],
    ...["a", "2", "set-cookie", "b=2", "set-cookie", "b=2", "c", "3"],
  ]);
  assert.deepEqual(normalise({ statusCode: 200, headers: new Headers({ a: "b" }) }).headers, [
    "a",
    "b",
  ]);
});

test("headers that HTTP cannot carry are errors", () => {
  for (const headers of [{ "a b": "c" }, { a: "b\r\nc: d" }, { "": "x" }, { a: "\0" }]) {
    assert.throws(() => normalise({ statusCode: 200, headers }), /invalid header/);
  }
});

test("responses", async () => {
  const headers = new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"], ["X-B", "c"]]);
  const made = normalise(new Response(null, { status: 404, headers }));
  assert.equal(made.status, 404);
  assert.deepEqual(made.headers, ["set-cookie", "a=1", "set-cookie", "b=2", "x-b", "c"]);
  const read = new Response("x");
  await read.text();
  assert.throws(() => normalise(read), /was read already/);
});

test("pieces of a stream", () => {
  assert.equal(pieceOf("a"), "a");
  assert.equal(pieceOf({ a: 1 }), '{"a":1}');
  assert.deepEqual(pieceOf(new Uint8Array([1]).buffer), new Uint8Array([1]));
  assert.throws(() => pieceOf(undefined), TypeError);
});
