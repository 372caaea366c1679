import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { callEvent, callMain } from "ext:cloudserve/event.js";
import { chooseHandler } from "ext:cloudserve/handlers.js";
import { peerOf } from "ext:cloudserve/request.js";
import { callStream, awslambda } from "ext:cloudserve/stream.js";
import { makeCall, settings } from "./calls.mjs";

/** `isIdle`: nothing is under way when the handler has returned. */
const ask = async (handler, { isIdle = false } = {}) => {
  const chosen = chooseHandler({ handler }, { serve: null, server: null });
  assert.equal(chosen.kind, "event");
  const { call } = makeCall();
  const answer = callEvent(call, chosen, settings);
  if (isIdle) call.idle();
  return answer;
};

test("what comes first is the answer", async () => {
  assert.equal(await ask(() => "returned"), "returned");
  assert.equal(await ask(async () => "awaited"), "awaited");
  assert.equal(await ask(() => undefined), undefined);
  assert.equal(await ask((event, context, callback) => callback(null, "called")), "called");
  assert.equal(
    await ask((event, context, callback) => void setTimeout(callback, 1, null, "later")),
    "later",
  );
  assert.equal(await ask((event, context, callback) => "returned"), "returned");
  await assert.rejects(ask((event, context, callback) => callback(new Error("no"))), /no/);
  await assert.rejects(ask(async () => { throw new Error("no"); }), /no/);
  await assert.rejects(ask(() => { throw new Error("no"); }), /no/);
  // Nothing that comes later changes it.
  const thrower = (event, context, callback) => {
    callback(null, "called");
    throw new Error("no");
  };
  assert.equal(await ask(thrower), "called");
  assert.equal(await ask((event, context) => { context.done(null, 1); return 2; }), 1);
});

test("a callback is there, however it is asked for", async () => {
  const later = (answer) => void setTimeout(answer, 1, null, "later");
  for (const handler of [
    (event, context, callback) => later(callback),
    (event, context, callback = () => {}) => later(callback),
    (event, context = {}, callback) => later(callback),
    ({ query: { a } = {} }, { done } = {}, callback) => later(callback),
    (...args) => later(args[2]),
    (event, ...rest) => later(rest[1]),
    function () { later(arguments[2]); },
    { handler(event, context, callback = null) { later(callback); } }.handler,
    function named(event, context) { later((_, value) => context.succeed(value)); },
    (event, context) => later((error, value) => context.done(error, value)),
    (event, context) => void Promise.resolve("later").then(context.succeed, context.fail),
    (event, context) => void setTimeout(() => context.succeed("later"), 5),
    (event, $c) => void setTimeout(() => $c?.done(null, "later"), 5),
    (event, context) => { const { succeed } = context; setTimeout(succeed, 1, "later"); },
    (event, context) => { const { done } = Object.create(context); later(done); },
    (event, context) => { const { done } = new Proxy(context, {}); later(done); },
    (event, context) => { const ctx = context; setTimeout(() => ctx.succeed("later"), 5); },
    (event, ctx) => { ((context) => setTimeout(() => context.done(null, "later"), 5))(ctx); },
    (event, context) => { const all = { ...context }; later(all.done); },
    (event, context) => { const all = { event, context }; setTimeout(() => all.context.succeed("later")); },
    (event, context) => void setTimeout(() => context["succeed"]("later"), 5),
    (event, { done }) => later(done),
    (event, { ...context }) => later(context.done),
    function (event, context) { later(context.done); }.bind(null),
    new Proxy((event, context) => later(context.done), {}),
    function () { const context = arguments[1]; setTimeout(() => context.succeed("later"), 5); },
    function () { return ((...args) => later(args[2]))(...arguments); },
    function () { return ((a, b, c) => later(c)).apply(this, arguments); },
    function () {
      for (var n = arguments.length, args = new Array(n), i = 0; i < n; i++) args[i] = arguments[i];
      later(args[2]);
    },
    (event /* , */, context = ")", /* third */ callback = /["'`]/) => later(callback),
  ]) {
    assert.equal(await ask(handler), "later", `${handler}`);
  }
  // Nothing of that kind: what is returned is the answer, be it nothing.
  for (const handler of [
    () => {},
    (event) => {},
    event => void [event, 1, 2],
    async (event, context) => {},
    (event, context = { a: [1, 2], b: (c, d, e) => {} }) => {},
    ({ a, b, c }, { d, e } = { d: [1, 2, 3] }) => {},
    (() => {}).bind(null),
    (event) => void `missing arguments`,
    (event) => { const log = () => {}; log("missing arguments[2]", '...arguments'); },
    (event) => {
      // Called with ...arguments, as context.succeed() is.
      /* arguments[2] */
    },
    (event) => { (function () { return arguments.length; })(); },
    (event, context) => { const t = { fail() {} }; t.fail(); ({ context: t }).context.fail(); },
    (event, context) => void context.functionName,
    (event, context) => { context?.waitUntil(Promise.resolve()); return void { context: 1 }; },
    (event) => { for (const _ of [1, 2, 3]); const step = { done: true }; if (step.done) return; },
  ]) {
    assert.equal(await ask(handler), undefined, `${handler}`);
  }
});

test("a handler is given what it can see", async () => {
  const sees = (handler) => chooseHandler({ handler }, { serve: null, server: null }).sees;
  for (const [count, handlers] of [
    [0, [() => 1, async () => 1, function () {}, async function named() {}, (/* event */) => 1]],
    [0, [{ handler() {} }.handler, { async handler() {} }.handler]],
    [1, [(event) => 1, event => 1, async event => 1, async (event) => 1, function (event) {}]],
    [1, [({ query, body: sent }) => 1, { async handler(event,) {} }.handler]],
    [3, [(event, context) => 1, (...args) => 1, (event = {}) => 1, ({ query = {} }) => 1]],
    [3, [function () { return arguments; }, () => eval("1"), function* () {}, (() => 1).bind(null)]],
    [3, [new Proxy(() => 1, {}), parseInt, { [`a${(1)}`](event) {} }["a1"], new Function("return 1")]],
  ]) {
    for (const handler of handlers) assert.equal(sees(handler), count, `${handler}`);
  }
  assert.equal(await ask((event) => event.version), "2.0");
  assert.equal(await ask(({ version }) => ({ then: (resolve) => resolve(version) })), "2.0");
  assert.equal(await ask(function () { return arguments.length; }), 3);
});

test("nobody waits for an answer when nothing is left that could give one", async () => {
  for (const handler of [
    (event, context, callback) => {},
    (event, context) => void JSON.stringify({ ...context }),
    (event, context) => { if (!context) throw new Error("no context"); },
    function (event) {
      var context = arguments.length > 1 && arguments[1] !== undefined ? arguments[1] : {};
    },
  ]) {
    assert.equal(await ask(handler, { isIdle: true }), undefined, `${handler}`);
  }
  const status = (event, context) => void context.status(201).headers({ a: "b" }).succeed;
  assert.equal((await ask(status, { isIdle: true })).statusCode, 201);
  const called = (event, context, callback) => callback(null, "called");
  assert.equal(await ask(called, { isIdle: true }), "called");
});

test("a context answers its own call and no other", async () => {
  let late;
  await ask((event, context) => { late = new Proxy(context, {}); return "first"; });
  const second = ask((event, context, callback) => void setTimeout(callback, 5, null, "second"));
  late.fail(new Error("of the first call"));
  assert.equal(await second, "second");
});

test("the context is a plain object whose functions may be replaced", async () => {
  const shown = await ask((event, context) => inspect(context));
  assert.match(shown, /^\{\n  functionName: 'f',/);
  const wrapped = await ask((event, context) => {
    "use strict";
    const { succeed } = context;
    context.succeed = (value) => succeed(`wrapped ${value}`);
    context.succeed("value");
  });
  assert.equal(wrapped, "wrapped value");
});

test("the context of AWS's older style and of OpenFaaS answers", async () => {
  assert.equal(await ask((event, context) => context.succeed("done")), "done");
  await assert.rejects(ask((event, context) => context.fail(new Error("no"))), /no/);
  const openfaas = await ask(async (event, context) =>
    context.status(201).headers({ "x-a": "b" }).succeed({ made: true })
  );
  assert.deepEqual(openfaas, { statusCode: 201, headers: { "x-a": "b" }, body: { made: true } });
  const later = await ask((event, context) => {
    setTimeout(() => context.done(null, "late"), 1);
    return new Promise(() => {});
  });
  assert.equal(later, "late");
});

test("a caller is whom the gateway's peer has spoken for", () => {
  for (const [forwarded, address] of [
    // The gateway adds its peer last. Before it stands what a trusted proxy has added.
    ["10.0.0.9", "10.0.0.9"],
    ["203.0.113.1, 10.0.0.9", "203.0.113.1"],
    ["6.6.6.6, 203.0.113.1, 10.0.0.9", "203.0.113.1"],
    ["6.6.6.6,203.0.113.1 ,10.0.0.9", "203.0.113.1"],
    ["6.6.6.6, 2001:db8::1, 10.0.0.9", "2001:db8::1"],
    ["6.6.6.6, , 10.0.0.9", "10.0.0.9"],
  ]) {
    assert.equal(peerOf({ headers: ["host", "h", "x-forwarded-for", forwarded] }), address);
  }
  assert.equal(peerOf({ headers: ["host", "h"] }), "");
});

test("main gets query and body as one object", async () => {
  const { call } = makeCall({
    method: "POST",
    target: "/p?a=1&b=1",
    headers: ["content-type", "application/json"],
    body: '{"b":2,"__ow_method":"spoofed"}',
  });
  const params = await callMain(call, { main: (params) => params }, settings);
  assert.deepEqual([params.a, params.b, params.__ow_method], ["1", 2, "post"]);
  assert.equal(params.http.path, "/p");
});

test("what main returns may be an HTTP result without a status", async () => {
  const returned = (value) => callMain(makeCall().call, { main: () => value }, settings);
  const headers = { location: "/" };
  for (const [value, statusCode] of [
    [{ body: "Hello" }, 200],
    [{ headers, body: { a: 1 } }, 200],
    [{ headers, body: "" }, 204],
    [{ body: undefined }, 204],
  ]) {
    assert.deepEqual(await returned(value), { ...value, statusCode });
    assert.deepEqual(await returned(Promise.resolve(value)), { ...value, statusCode });
  }
  for (const data of [
    { body: "a post", title: "of it" },
    { body: "a post", status: "published" },
    { headers: ["name"], body: [["Ada"]] },
    { statusCode: 201, body: "as it says" },
    { headers },
    ["body"],
    new Response("made"),
    null,
    undefined,
  ]) {
    assert.equal(await returned(data), data);
  }
});

test("version 1.0 events are API Gateway's", async () => {
  const { call } = makeCall({
    target: "/a/b?x=1&x=2",
    headers: ["host", "h", "x-a", "1", "x-a", "2", "x-forwarded-for", "9.9.9.9"],
  });
  const handler = (event) => event;
  const event = await callEvent(call, { handler }, { ...settings, eventFormat: "lambda-v1" });
  assert.equal(event.version, "1.0");
  assert.equal(event.httpMethod, "GET");
  assert.equal(event.path, "/a/b");
  assert.deepEqual(event.queryStringParameters, { x: "2" });
  assert.deepEqual(event.multiValueQueryStringParameters, { x: ["1", "2"] });
  assert.deepEqual(event.multiValueHeaders["x-a"], ["1", "2"]);
  assert.deepEqual(event.pathParameters, { proxy: "a/b" });
  assert.equal(event.requestContext.identity.sourceIp, "9.9.9.9");
  assert.equal(event.body, null);
});

async function stream(handler) {
  const { call, got } = makeCall();
  await callStream(call, { handler: awslambda.streamifyResponse(handler) }, settings);
  return got;
}

test("a response is streamed with the head it was given", async () => {
  const got = await stream(async (event, response) => {
    const head = { statusCode: 201, headers: { "Content-Type": "text/plain" }, cookies: ["a=1"] };
    response = awslambda.HttpResponseStream.from(response, head);
    response.write("one ");
    await new Promise(setImmediate);
    response.write("two");
    response.end();
  });
  assert.equal(got.status, 201);
  assert.deepEqual(got.headers, ["content-type", "text/plain", "set-cookie", "a=1"]);
  assert.deepEqual([got.text(), got.ended, got.isWhole], ["one two", true, false]);

  const bare = await stream(async (event, response) => void response.end("x"));
  assert.deepEqual(bare.headers, ["content-type", "application/octet-stream"]);
});

test("a streaming handler that fails fails its call", async () => {
  await assert.rejects(stream(async () => { throw new Error("no"); }), /no/);
  await assert.rejects(
    stream(async (event, response) => {
      awslambda.HttpResponseStream.from(response, { statusCode: 7 });
    }),
    /status/,
  );
  await assert.rejects(
    stream(async (event, response) => {
      response.write("one");
      response.destroy();
    }),
    /destroyed its stream/,
  );
});

test("a body of known length is read into one buffer", async () => {
  const headers = ["content-type", "text/plain", "content-length", "6"];
  const late = () => makeCall({ method: "POST", headers, body: "ab", end: false });
  const write = (got, text) => {
    got.filling.set(Buffer.from(text), got.filledTo);
    got.filledTo += text.length;
  };
  const nothing = new Uint8Array(0);

  const { call, got } = late();
  const body = call.wholeBody();
  write(got, "cd");
  write(got, "ef");
  call.receive(nothing, true);
  assert.equal(Buffer.from(await body).toString(), "abcdef");
  assert.equal((await body).buffer.byteLength, 6);

  // What did not fit, or comes some other way, comes as a piece.
  const mixed = late();
  const pieces = mixed.call.wholeBody();
  write(mixed.got, "c");
  mixed.call.receive(Buffer.from("de"), false);
  await null;
  await null;
  write(mixed.got, "f");
  mixed.call.receiveTrailers(["a", "b"]);
  assert.equal(Buffer.from(await pieces).toString(), "abcdef");

  const short = late();
  const less = short.call.wholeBody();
  write(short.got, "c");
  short.call.receive(nothing, true);
  assert.deepEqual([...(await less)], [97, 98, 99]);

  const cut = late();
  const never = cut.call.wholeBody();
  write(cut.got, "c");
  cut.call.abort();
  await assert.rejects(never, /cut off/);
});
