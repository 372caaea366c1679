import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseHandler } from "ext:cloudserve/handlers.js";

const kindOf = (namespace) => chooseHandler(namespace)?.kind;
const f = () => {};

test("the first form in contract order wins", () => {
  assert.equal(kindOf({ default: { fetch: f, handler: f }, GET: f }), "fetch");
  assert.equal(kindOf({ default: f, GET: f }), "methods");
  assert.equal(kindOf({ default: f, handler: f }), "event");
  assert.equal(kindOf({ handler: f, default: { a: 1 } }), "event");
  assert.equal(kindOf({ default: 5 }), "constant");
});

test("CommonJS and transpiled modules are looked into", () => {
  assert.equal(kindOf({ default: { handler: f } }), "event");
  assert.equal(kindOf({ default: { __esModule: true, default: f } }), "event");
  assert.equal(kindOf({ default: { __esModule: true, default: { fetch: f } } }), "fetch");
  assert.equal(kindOf({ default: { GET: f } }), "methods");
  assert.equal(chooseHandler({ default: { __esModule: true, default: 7 } }).value, 7);
  assert.deepEqual(chooseHandler({ default: { default: 7 } }).value, { default: 7 });
});

test("nothing exported is no handler", () => {
  for (const namespace of [{}, { other: f }, { default: undefined }, { default: {} }]) {
    assert.equal(chooseHandler(namespace), null);
  }
  assert.equal(chooseHandler({ default: null }).value, null);
  assert.deepEqual(chooseHandler({ default: [] }).value, []);
});

test("HEAD is answered by GET, and Allow says so", () => {
  const { methods, allow } = chooseHandler({ GET: f, POST: f });
  assert.equal(methods.HEAD, f);
  assert.equal(methods.PUT, undefined);
  assert.equal(methods.constructor, undefined);
  assert.equal(allow, "GET, POST, HEAD");
});

test("a fetch method keeps its object", () => {
  class App {
    name = "app";
    fetch() {
      return this.name;
    }
  }
  assert.equal(chooseHandler({ default: new App() }).fetch(), "app");
});
