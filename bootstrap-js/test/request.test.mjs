import assert from "node:assert/strict";
import querystring from "node:querystring";
import { test } from "node:test";
import { makeGatewayEvent } from "ext:cloudserve/gateway_event.js";
import { headersObject, makeEvent } from "ext:cloudserve/request.js";

const bytes = (text) => new TextEncoder().encode(text);

function event({ method = "POST", target = "/", headers = [], body = null, format = "parsed" }) {
  return makeEvent({ method, target, headers, executionId: "id" }, body, format, 0);
}

test("JSON and forms are parsed, text is text", () => {
  const typed = (type, body) => event({ headers: ["content-type", type], body: bytes(body) });
  assert.deepEqual(typed("application/json", '{"a":1}').body, { a: 1 });
  assert.deepEqual(typed("application/problem+json; charset=utf-8", "[1]").body, [1]);
  assert.equal(typed("application/json", "{oops").body, "{oops");
  assert.deepEqual(typed("application/x-www-form-urlencoded", "a=1&b=2&b=3").body, {
    a: "1",
    b: ["2", "3"],
  });
  assert.equal(typed("text/plain", "{}").body, "{}");
  assert.equal(event({ body: bytes("plain") }).body, "plain");
});

test("a parsed body can be parsed again", () => {
  const headers = ["content-type", "application/json"];
  const { body } = event({ headers, body: bytes('{"a":[1]}') });
  assert.deepEqual(JSON.parse(body), { a: [1] });
  const type = ["content-type", "application/x-www-form-urlencoded"];
  const form = event({ headers: type, body: bytes("a=1&b=2&b=3") });
  assert.equal(`${new URLSearchParams(form.body)}`, "a=1&b=2%2C3");
  // Of an object it makes nothing, whatever the object has: docs/API.md says so.
  assert.deepEqual({ ...querystring.parse(form.body) }, {});
  assert.deepEqual({ ...querystring.parse(form.rawBody) }, form.body);
  assert.deepEqual(Object.keys(body), ["a"]);
  assert.equal(event({ headers, body: bytes('{"toString":1}') }).body.toString, 1);
});

test("bytes that are no text arrive as base64", () => {
  const image = event({ headers: ["content-type", "image/png"], body: new Uint8Array([1, 2]) });
  assert.deepEqual([image.body, image.isBase64Encoded], ["AQI=", true]);
  const broken = event({ headers: ["content-type", "text/plain"], body: new Uint8Array([255]) });
  assert.deepEqual([broken.body, broken.isBase64Encoded], ["/w==", true]);
});

test("the lambda format leaves the body alone", () => {
  const headers = ["content-type", "application/json"];
  assert.equal(event({ headers, body: bytes("{}"), format: "lambda" }).body, "{}");
  assert.equal(event({ format: "lambda" }).body, null);
  assert.equal(event({}).body, undefined);
});

test("an event of payload format 1.0 tells its time as AWS does", () => {
  const request = { method: "GET", target: "/a/b?x=1", headers: [], executionId: "id" };
  const began = Date.UTC(2015, 3, 9, 2, 34, 56);
  const { requestContext } = makeGatewayEvent(request, null, "lambda-v1", began);
  assert.equal(requestContext.requestTime, "09/Apr/2015:02:34:56 +0000");
  assert.equal(requestContext.requestTimeEpoch, began);
});

test("path, query, headers and cookies", () => {
  const made = event({
    method: "GET",
    target: "/a%20b/%zz?x=1&x=2&y=%C3%A9",
    headers: ["host", "h", "x-a", "1", "x-a", "2", "cookie", "a=1; b=2", "__proto__", "p"],
  });
  assert.equal(made.rawPath, "/a%20b/%zz");
  assert.equal(made.path, "/a%20b/%zz");
  assert.equal(made.rawQueryString, "x=1&x=2&y=%C3%A9");
  assert.deepEqual(made.query, { x: ["1", "2"], y: "é" });
  assert.deepEqual(made.queryStringParameters, { x: "1,2", y: "é" });
  assert.equal(made.headers["x-a"], "1, 2");
  assert.deepEqual(made.cookies, ["a=1", "b=2"]);
  assert.equal(made.requestContext.domainName, "h");
  assert.equal(made.requestContext.http.method, "GET");
});

test("headers may be called what all objects have", () => {
  Object.prototype.planted = "theirs";
  try {
    for (const name of ["__proto__", "constructor", "planted"]) {
      const headers = headersObject([name, "a", "host", "h", name, "b"]);
      assert.deepEqual(Object.entries(headers), [[name, "a, b"], ["host", "h"]]);
      assert.equal(Object.getPrototypeOf(headers), Object.prototype);
    }
  } finally {
    delete Object.prototype.planted;
  }
});

test("headers are a request's own, whatever those before had", () => {
  const entries = (...flat) => Object.entries(headersObject(flat));
  for (const name of ["x-a", "__proto__", "constructor"]) {
    for (let n = 0; n < 4; n++) {
      assert.deepEqual(entries("host", "h", name, `${n}`), [["host", "h"], [name, `${n}`]]);
      const headers = headersObject(["host", "h", name, "1"]);
      assert.equal(Object.getPrototypeOf(headers), Object.prototype);
      delete headers.host;
      headers.more = "1";
    }
    assert.deepEqual(entries(name, "1", "host", "h"), [[name, "1"], ["host", "h"]]);
    assert.deepEqual(entries(name, "1", name, "2"), [[name, "1, 2"]]);
    assert.deepEqual(entries(name, "1", name, "2"), [[name, "1, 2"]]);
    assert.deepEqual(entries(name, "1", name, "2"), [[name, "1, 2"]]);
  }
});
