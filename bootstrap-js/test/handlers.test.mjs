import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { chooseHandler, STREAMING } from "ext:cloudserve/handlers.js";

const NOTHING_CAPTURED = { serve: null, server: null, fetch: null };
const choose = (namespace, captured = {}) =>
  chooseHandler(namespace, { ...NOTHING_CAPTURED, ...captured });
const kindOf = (namespace, captured) => choose(namespace, captured)?.kind;

const f = () => {};
const streaming = Object.assign(() => {}, { [STREAMING]: "response" });
const express = Object.assign((req, res, next) => {}, { use: f, handle: f });
const koa = { use: f, listen: f, callback: () => f };
const fastify = { ready: f, routing: f, inject: f, listen: f };
const server = http.createServer();

test("a wrapper is an event handler unless its export says what it is", () => {
  const wrapped = ((handler) => (...args) => handler(...args))((request) => request.json());
  for (const candidate of [wrapped, ((request) => request.json()).bind(null)]) {
    assert.equal(kindOf({ default: candidate }), "event");
    assert.equal(kindOf({ default: { fetch: candidate } }), "fetch");
    assert.equal(kindOf({ GET: candidate }), "methods");
    assert.equal(kindOf({ default: http.createServer(candidate) }), "app");
  }
});

test("each form is recognised", () => {
  for (const [kind, namespace, captured] of [
    ["deno-serve", {}, { serve: {} }],
    ["server", {}, { server }],
    ["fetch", { default: { fetch: f } }],
    ["fetch", {}, { fetch: f }],
    ["methods", { PATCH: f }],
    ["lambda-stream", { handler: streaming }],
    ["app", { default: express }],
    ["app", { default: koa }],
    ["app", { default: fastify }],
    ["app", { default: server }],
    ["app", { handler: express }],
    ["listener", { default: function index(req, res) {} }],
    ["listener", { default: async (req, res) => {} }],
    ["listener", { default: async function (request, response) {} }],
    ["listener", { default: (_, res) => {} }],
    ["listener", { default: (req, resp) => {} }],
    ["listener", { default: (_request, _response) => {} }],
    ["listener", { default: async function handler(message, _res) {} }],
    // As bundles name what has the name of a variable of another module.
    ["listener", { default: (req2, res2) => {} }],
    // As the adapter of Hono for Node servers makes it.
    ["listener", { default: async (incoming, outgoing) => {} }],
    ["listener", { default: ({ query, method = "GET" }, res) => {} }],
    ["listener", { default: (req /* of Node */, /* its */ res) => {} }],
    ["listener", { default: { async index(req, res) {} }.index }],
    ["event", { default: (event, { res }) => {} }],
    ["event", { default: (event /* , res */) => {} }],
    ["event", { default: f }],
    ["fetch", { default: async (request) => Response.json(await request.json()) }],
    ["fetch", { default: (req, context) => new Response(req.headers.get("x-a")) }],
    ["fetch", { handler: async function (request) { return new URL(request.url).pathname; } }],
    ["fetch", { default: (req) => new Response(`from ${req.headers.get("x-a") ?? `no ${"one"}`}`) }],
    ["fetch", { default: (request) => `${{ a: `}` }.a} ${new URL(request.url).pathname}` }],
    ["fetch", { default: (request) => { const { url } = request; return new Response(request.url); } }],
    ["fetch", { default: async (request2) => Response.json(await request2.json()) }],
    ["fetch", { default: (request) => { const { method, url: target } = request; return method + target; } }],
    ["fetch", { default: (request) => Object.fromEntries(request.headers) }],
    ["fetch", { default: (request) => { for (const pair of request.headers) return pair; } }],
    ["fetch", { default: (request) => [...request.headers.keys()] }],
    ["fetch", { default: ((app) => (req) => app.fetch(req))({}) }],
    ["fetch", { default: ((app) => (req, context) => app.fetch(req, { context }))({}) }],
    ["fetch", { default: (request) => fetch(new Request(request, { redirect: "manual" })) }],
    ["fetch", { default: async ({ method, url }) => new Response(method + url) }],
    ["fetch", { default: ({ url: target, headers }, context) => new Response(target) }],
    ["event", { default: ({ headers, body }) => fetch(body.url).then(({ headers }) => headers.get("x-a")) }],
    ["event", { default: async (req) => [await fetch("/").then((req) => req.json()), req.query] }],
    ["event", { default: (req) => (req.headers.get ? req.headers.get("a") : req.headers.a) + req.path }],
    ["constant", { default: { toJSON: () => ({ a: 1 }) } }],
    ["event", { default: ({ headers }) => headers.host }],
    ["event", { default: ({ headers: own }) => headers.get(own) }],
    ["event", { default: ({ method, body }) => body }],
    ["event", { default: ({ query, url }) => query }],
    ["event", { default: ({ url = "/" }) => url }],
    ["event", { default: (req) => fetch(req.body.url) }],
    ["event", { default: (req) => prefetch(req) }],
    ["event", { default: (req) => [req.url, req.body.name] }],
    ["event", { default: (req) => [req.url, JSON.parse(req.body)] }],
    ["event", { default: (req) => { const { name } = req.body; return [req.url, name]; } }],
    ["event", { default: (req) => { const body = req.body ?? {}; return [req.url, body.name]; } }],
    ["event", { default: (req) => [req.url, req.body["name"]] }],
    ["event", { default: (req) => { const { query, body } = req; return [req.url, query, body]; } }],
    ["event", { default: (req) => ({ url: req.url, ...req.query }) }],
    ["event", { default: (req) => { const { body: url } = req; return fetch(url); } }],
    ["event", { default: (req) => { const { url, body } = req; return [url, body.name]; } }],
    ["event", { default: (req) => { const { url } = req.body; return fetch(url); } }],
    ["event", { default: (req) => [...req.headers.cookie, ...req.headers["x-a"]] }],
    ["fetch", { default: (req) => new Response(req.body.pipeThrough(new CompressionStream(req.url))) }],
    ["event", { default: (req) => fetch(req.query.url, { body: req }) }],
    ["event", { default: (request) => (request.url ?? request.rawPath) + request.path }],
    ["event", { default: ({ url, ...rest }) => rest }],
    ["event", { default: async (request) => `request.json() ${request.path} \${request.text()}` }],
    ["event", { default: async (request) => {} }],
    ["event", { default: async (request) => request.body.text() + "request.json()" }],
    ["event", { default: async (event) => (await fetch(event.url)).json() }],
    ["event", { default: async (data) => fetch("/").then((data) => data.json()) }],
    ["listener", { default: async (req, res) => res.json(await req.json()) }],
    ["event", { default: (event, response_id) => {} }],
    ["event", { default: ({ query }, result) => {} }],
    ["event", { default: (event, respond) => {} }],
    ["event", { default: (req, context) => {} }],
    ["event", { handler: (event, context, callback) => {} }],
    ["main", { main: f }],
    ["main", { default: { main: f } }],
    ["constant", { default: 5 }],
    ["constant", { default: { a: 1 } }],
  ]) {
    assert.equal(kindOf(namespace, captured), kind);
  }
});

test("where several forms fit, the first in contract order wins", () => {
  const everything = {
    default: { fetch: f, GET: f, handler: f, main: f },
    GET: f,
    handler: f,
    main: f,
  };
  for (const [kind, namespace, captured] of [
    ["deno-serve", everything, { serve: {}, server }],
    ["server", everything, { server }],
    ["server", { default: express }, { server }],
    ["server", { handler: f }, { server }],
    ["fetch", everything],
    ["fetch", { default: { fetch: f }, GET: f }],
    ["methods", { default: f, GET: f }],
    ["methods", { GET: f, handler: streaming }],
    ["lambda-stream", { default: f, handler: streaming }],
    ["event", { default: f, handler: express }],
    ["app", { default: express, handler: f }],
    ["event", { handler: f, main: f }],
    ["event", { handler: f, default: { a: 1 } }],
    ["main", { main: f, default: { a: 1 } }],
    ["main", { main: f, default: 5 }],
    ["fetch", { default: 5 }, { fetch: f }],
    ["event", { handler: f }, { fetch: f }],
  ]) {
    assert.equal(kindOf(namespace, captured), kind);
  }
});

test("CommonJS and transpiled modules are looked into", () => {
  const transpiled = (exported) => ({ default: { __esModule: true, default: exported } });
  assert.equal(kindOf({ default: { handler: f } }), "event");
  assert.equal(kindOf(transpiled(f)), "event");
  assert.equal(kindOf(transpiled({ fetch: f })), "fetch");
  assert.equal(kindOf(transpiled(express)), "app");
  assert.equal(kindOf({ default: { GET: f } }), "methods");
  assert.equal(kindOf({ default: { handler: streaming } }), "lambda-stream");
  assert.equal(choose(transpiled(7)).value, 7);
  assert.deepEqual(choose({ default: { default: 7 } }).value, { default: 7 });
});

test("nothing exported is no handler", () => {
  for (const namespace of [
    {},
    { other: f },
    { default: undefined },
    { default: {} },
    { default: { other: f } },
    { default: { region: "eu", other: f } },
  ]) {
    assert.equal(choose(namespace), null);
  }
  assert.equal(choose({ default: null }).value, null);
  assert.deepEqual(choose({ default: [] }).value, []);
});

test("HEAD is answered by GET, and Allow says so", () => {
  const { methods, allow } = choose({ GET: f, POST: f });
  assert.equal(methods.HEAD, f);
  assert.equal(methods.PUT, undefined);
  assert.equal(methods.constructor, undefined);
  assert.equal(allow, "GET, POST, HEAD");
});

test("a function of a Request gets it, and what fetch gets last", () => {
  const own = (request, context) => [request.headers.get("a"), context];
  const { fetch } = choose({ default: own });
  assert.deepEqual(fetch(new Request("http://h/", { headers: { a: "b" } }), "env", "ctx"), ["b", "ctx"]);
});

test("a fetch method keeps its object", () => {
  class App {
    name = "app";
    fetch() {
      return this.name;
    }
  }
  assert.equal(choose({ default: new App() }).fetch(), "app");
});
