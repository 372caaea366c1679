import assert from "node:assert/strict";
import { PassThrough, Readable } from "node:stream";
import { test } from "node:test";
import zlib from "node:zlib";
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

test("what a Response may be made of", async () => {
  const form = new FormData();
  form.set("a", "b");
  for (const [value, type, text] of [
    [new Blob(["hi"], { type: "image/svg+xml" }), /^image\/svg\+xml$/, /^hi$/],
    [new Blob(["hi"]), /^application\/octet-stream$/, /^hi$/],
    [new URLSearchParams({ a: "b c" }), /^application\/x-www-form-urlencoded/, /^a=b\+c$/],
    [form, /^multipart\/form-data; boundary=/, /name="a"\r\n\r\nb\r\n/],
  ]) {
    for (const made of [normalise(value), normalise({ statusCode: 200, body: value })]) {
      assert.equal(made.status, 200);
      assert.match(made.headers[1], type);
      assert.match(await new Response(made.body).text(), text);
    }
  }
  assert.equal(normalise({}).body, "{}");
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

const GZIP = { allow: "GET", "content-encoding": "gzip", "content-length": "20" };
const LEFT = ["allow", "GET"];

function upstream(text = "decoded") {
  const response = new Response(new Blob([text]).stream(), { headers: GZIP });
  decodedForTests.add(response);
  return response;
}

/** A Response, as the engine has it, of bytes, a text or a Blob. */
function madeOf(source, init) {
  const response = new Response(source, init);
  sourcesForTests.set(response, source);
  return response;
}

test("what fetch has decoded is not said to be encoded", () => {
  assert.deepEqual(normalise(upstream()).headers, LEFT);
  const { body, headers } = upstream();
  assert.deepEqual(normalise(new Response(body, { headers })).headers, LEFT);
  const text = madeOf("text", { headers: GZIP });
  assert.deepEqual(normalise(text).headers, [...LEFT, "content-type", "text/plain;charset=UTF-8"]);
  const encoded = new Response(zlib.gzipSync("own"), { headers: GZIP });
  assert.deepEqual(normalise(encoded).headers, Object.entries(GZIP).flat());
  assert.equal(normalise(new Response("x", { headers: { "content-length": "1" } })).headers[0], "content-length");
});

test("what was read at once of what fetch has decoded is not said to be encoded", async () => {
  const said = (source, encoding, status = 200) =>
    normalise(madeOf(source, { status, headers: { "content-encoding": encoding } })).headers;
  const long = "long and decoded ".repeat(1_000);
  for (const text of ["", "decoded", long]) {
    // Nobody knows the bytes of Brotli by their looks.
    const sent = new TextEncoder().encode(`br ${text}`);
    assert.deepEqual(said(sent, "br"), ["content-encoding", "br"]);
    const read = [await upstream(`br ${text}`).arrayBuffer(), await upstream(`br ${text}`).bytes()];
    for (const bytes of read) {
      assert.deepEqual(said(new Uint8Array(bytes), "br"), []);
      assert.deepEqual(said(Buffer.from(bytes), " GZIP"), []);
      assert.deepEqual(said(new Uint8Array(bytes), "gzip, br"), ["content-encoding", "gzip, br"]);
      assert.deepEqual(said(new Uint8Array(bytes), "zstd"), ["content-encoding", "zstd"]);
    }
    for (const encoding of ["br", "gzip"]) {
      assert.deepEqual(said(await upstream(text).blob(), encoding), []);
      const own = said(new Blob([text]), encoding);
      assert.deepEqual(own, ["content-encoding", encoding]);
    }
    // What really is compressed, or may be.
    assert.deepEqual(said(zlib.brotliCompressSync(text), "br"), ["content-encoding", "br"]);
    assert.deepEqual(said(zlib.gzipSync(text), "gzip"), ["content-encoding", "gzip"]);
    assert.deepEqual(said(sent.slice(1), "gzip", 206), ["content-encoding", "gzip"]);
    assert.deepEqual(said(sent.slice(1), "gzip"), []);
  }
  const plain = await new Response("br of nobody").bytes();
  assert.deepEqual(said(plain, "br"), ["content-encoding", "br"]);
  await assert.rejects(Response.prototype.arrayBuffer.call(undefined), TypeError);
});

test("only so many bodies are remembered", async () => {
  const said = (bytes) => normalise(madeOf(bytes, { headers: { "content-encoding": "br" } })).headers;
  for (let n = 0; n <= 256; n++) await upstream(`body ${n}`).bytes();
  assert.equal(said(new TextEncoder().encode("body 0")).length, 2);
  for (const n of [1, 256]) assert.deepEqual(said(new TextEncoder().encode(`body ${n}`)), []);
});

test("the Response of a package is an answer", () => {
  // As node-fetch has it: what it knows is not enumerable, but its size.
  class PackageResponse {
    size = 0;
    #init;
    constructor(init) {
      this.#init = init;
    }
    get status() {
      return this.#init.status ?? 200;
    }
    get headers() {
      const headers = new Headers(this.#init.headers);
      headers.append("set-cookie", "a=1");
      headers.append("set-cookie", "b=2");
      if (this.#init.raw) headers.raw = () => ({ "Set-Cookie": ["a=1", "b=2"] });
      return headers;
    }
    get body() {
      return this.#init.body;
    }
    get bodyUsed() {
      return this.#init.bodyUsed ?? false;
    }
    get url() {
      return this.#init.url ?? "";
    }
    async text() {}
  }
  const COOKIES = ["set-cookie", "a=1", "set-cookie", "b=2"];
  const encoded = [...Object.entries(GZIP).flat(), ...COOKIES];
  const web = () => new Blob(["x"]).stream();
  for (const [init, headers] of [
    [{ body: null, status: 404 }, COOKIES],
    [{ body: null, raw: true }, COOKIES],
    [{ body: Readable.from(["x"]), headers: { a: "b" } }, ["a", "b", ...COOKIES]],
    [{ body: zlib.createGunzip(), headers: GZIP }, [...LEFT, ...COOKIES]],
    [{ body: new PassThrough(), headers: GZIP, url: "http://h/" }, encoded],
    [{ body: web(), headers: GZIP, url: "http://h/" }, [...LEFT, ...COOKIES]],
    [{ body: web(), headers: GZIP }, encoded],
    [{ body: Buffer.from("x"), headers: GZIP }, encoded],
  ]) {
    const made = normalise(new PackageResponse(init));
    assert.deepEqual(made, { status: init.status ?? 200, headers, body: init.body });
  }
  assert.throws(() => normalise(new PackageResponse({ bodyUsed: true })), /was read already/);
  assert.equal(normalise({ status: 200, text: "x" }).body, '{"status":200,"text":"x"}');
});

test("pieces of a stream", () => {
  assert.equal(pieceOf("a"), "a");
  assert.equal(pieceOf({ a: 1 }), '{"a":1}');
  assert.deepEqual(pieceOf(new Uint8Array([1]).buffer), new Uint8Array([1]));
  assert.throws(() => pieceOf(undefined), TypeError);
});
