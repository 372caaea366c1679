import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { captured } from "ext:cloudserve/capture.js";
import { callListener, serverForListener } from "ext:cloudserve/listener.js";
import { callServer, serverOf } from "ext:cloudserve/server.js";
import { makeCall, settings } from "./calls.mjs";

async function serve(listener, request) {
  const server = serverOf({ listener });
  const { call, got } = makeCall({ headers: ["host", "h"], ...request });
  await callServer(call, { server }, settings);
  return got;
}

test("listening is captured, and no port is opened", async () => {
  const server = http.createServer((req, res) => res.end("heard"));
  await new Promise((listening) => server.listen(3000, "0.0.0.0", listening));
  assert.equal(captured.server, server);
  assert.equal(server.listening, true);
  assert.deepEqual(server.address(), { address: "127.0.0.1", family: "IPv4", port: 3000 });
  assert.throws(() => server.listen(3001), { code: "ERR_SERVER_ALREADY_LISTEN" });
  await assert.rejects(fetch("http://127.0.0.1:3000/"));
  const second = http.createServer().listen();
  assert.equal(captured.server, server, "the first one counts");
  await new Promise((closed) => second.close(closed));
  const { call, got } = makeCall({ headers: ["host", "h"] });
  await callServer(call, { server }, settings);
  assert.equal(got.text(), "heard");
});

test("no timer looks after servers that nobody made", async () => {
  const checked = (server) => {
    const name = "http.server.connectionsCheckingInterval";
    const interval = Object.getOwnPropertySymbols(server).find((s) => s.description === name);
    return server[interval] !== undefined;
  };
  const listener = (req, res) => res.end();
  const own = http.createServer(listener);
  const servers = [
    serverOf({ server: own }),
    serverOf({ listener }),
    serverOf({ server: serverForListener(listener) }),
  ];
  await new Promise(setImmediate);
  assert.deepEqual(servers.map(checked), [true, false, false]);
  own.close();
});

test("an answer that is ready is sent whole", async () => {
  const got = await serve((req, res) => {
    res.setHeader("set-cookie", ["a=1", "b=2"]);
    res.writeHead(201, { "X-Method": req.method, "X-Url": req.url });
    res.end("made");
  }, { method: "POST", target: "/x?y=1" });
  assert.equal(got.status, 201);
  assert.deepEqual(got.header("set-cookie"), ["a=1", "b=2"]);
  assert.deepEqual(got.header("x-url"), ["/x?y=1"]);
  assert.deepEqual(got.header("connection"), []);
  assert.deepEqual(got.header("transfer-encoding"), []);
  assert.equal(got.text(), "made");
  assert.ok(got.isWhole);
});

test("trailers pass both ways", async () => {
  const server = serverOf({
    listener: (req, res) => {
      res.writeHead(200, { trailer: "x-sum" });
      req.on("end", () => {
        res.addTrailers({ "X-Sum": req.trailers["x-in"], "x-more": "é" });
        res.end("heard");
      });
      req.resume();
    },
  });
  const { call, got } = makeCall({ method: "POST", headers: ["host", "h"], end: false });
  const done = callServer(call, { server }, settings);
  call.receive(Buffer.from("hello"), false);
  call.receiveTrailers(["x-in", "5"]);
  await done;
  assert.equal(got.text(), "heard");
  assert.deepEqual(got.trailers, ["x-sum", "5", "x-more", "é"]);
  assert.deepEqual(got.header("trailer"), ["x-sum"]);
});

test("bodies stream both ways", async () => {
  const server = serverOf({
    listener: (req, res) => {
      res.writeHead(200, { trailer: "x-sum" });
      req.pipe(res);
    },
  });
  const { call, got } = makeCall({ method: "POST", headers: ["host", "h"], end: false });
  const done = callServer(call, { server }, settings);
  const pieces = Array.from({ length: 50 }, (_, i) => Buffer.alloc(10_000 + i, i));
  for (const [i, piece] of pieces.entries()) {
    call.receive(piece, i === pieces.length - 1);
    if (i % 7 === 0) await new Promise(setImmediate);
  }
  await done;
  assert.ok(Buffer.concat(got.pieces).equals(Buffer.concat(pieces)));
  assert.ok(got.ended && !got.isWhole);
});

test("a body of known length arrives as it is", async () => {
  const got = await serve(
    (req, res) => {
      let text = "";
      req.setEncoding("utf8").on("data", (piece) => (text += piece)).on("end", () => {
        res.end(JSON.stringify([text, req.headers["content-length"], req.complete]));
      });
    },
    { method: "PUT", headers: ["host", "h", "content-length", "5"], body: "héll" },
  );
  assert.deepEqual(JSON.parse(got.text()), ["héll", "5", true]);
});

test("answers without a body end", async () => {
  for (const [method, status] of [["HEAD", 200], ["GET", 204], ["GET", 304]]) {
    const got = await serve((req, res) => {
      res.writeHead(status, status === 200 ? { "content-length": 7 } : {});
      res.end();
    }, { method });
    assert.deepEqual([got.status, got.text(), got.ended], [status, "", true]);
    if (method === "HEAD") assert.deepEqual(got.header("content-length"), ["7"]);
  }
});

test("answers before the answer are skipped, text keeps its encoding", async () => {
  const got = await serve((req, res) => {
    res.writeContinue();
    res.writeEarlyHints({ link: "</a.css>; rel=preload" });
    res.setHeader("x-latin", "é");
    res.write("ü", "utf8");
    res.write(Buffer.from("b"));
    res.end("ff", "hex");
  });
  assert.equal(got.status, 200);
  assert.deepEqual(Buffer.concat(got.pieces), Buffer.from([0xc3, 0xbc, 0x62, 0xff]));
});

test("a server that hangs up has not answered", async () => {
  await assert.rejects(serve((req) => req.socket.destroy()), /before it had answered/);
  await assert.rejects(
    serve((req, res) => {
      res.write("half");
      setImmediate(() => res.destroy());
    }),
    /before it had answered/,
  );
});

test("a caller that hangs up is heard of", async () => {
  let heard;
  const closed = new Promise((resolve) => (heard = resolve));
  const server = serverOf({
    listener: (req, res) => {
      res.on("close", () => heard(res.writableFinished));
      res.write("begin");
    },
  });
  const { call } = makeCall({ headers: ["host", "h"] });
  const done = callServer(call, { server }, settings);
  await new Promise((resolve) => setTimeout(resolve, 5));
  call.cancel();
  await done;
  assert.equal(await closed, false);
});

test("a target that would not be one line is never written", async () => {
  const listener = () => assert.fail("it was called");
  // The low bytes of these are CR, LF, a blank and a letter.
  for (const target of ["/\u010dx", "/\u010ax", "/x\u0120y", "/\u0161", "/a b", "/a\r\nb: c", "/\x7f"]) {
    await assert.rejects(serve(listener, { target }), /target/, JSON.stringify(target));
  }
  const got = await serve((req, res) => res.end(req.url), { target: "/%C4%8D?a[]=1&b={\"c\"}" });
  assert.equal(got.text(), "/%C4%8D?a[]=1&b={\"c\"}");
});

test("requests one after the other do not see each other", async () => {
  const server = serverOf({ listener: (req, res) => res.end(req.url) });
  for (let i = 0; i < 20; i++) {
    const { call, got } = makeCall({ target: `/${i}`, headers: ["host", "h"] });
    await callServer(call, { server }, settings);
    assert.equal(got.text(), `/${i}`);
  }
});

async function ask(listener, request, send = () => {}) {
  const server = serverOf({ server: serverForListener(listener) });
  const { call, got } = makeCall({ headers: ["host", "h"], ...request });
  send(call);
  await callListener(call, { server }, settings);
  return got;
}

const JSON_BODY = {
  method: "POST",
  target: "/p?a=1",
  headers: ["host", "h", "cookie", "k=v", "content-type", "application/json"],
  body: '{"b":3}',
};

test("listeners get what Vercel and functions-framework add", async () => {
  const got = await ask((req, res) => {
    res.status(202).json([req.query, req.cookies, req.body, req.path, req.get("Host")]);
  }, {
    method: "POST",
    target: "/p?a=1&a=2",
    headers: ["host", "h", "cookie", "k=v%20w", "content-type", "application/json"],
    body: '{"b":3}',
  });
  assert.equal(got.status, 202);
  assert.deepEqual(JSON.parse(got.text()), [{ a: ["1", "2"] }, { k: "v w" }, { b: 3 }, "/p", "h"]);
  const headed = await ask((req, res) => {
    res.set({ "x-a": "1", "X-B": ["2", "3"] }).header("x-c", "4").sendStatus(204);
  });
  assert.deepEqual(["x-a", "x-b", "x-c"].map(headed.header), [["1"], ["2", "3"], ["4"]]);
  const moved = await ask((req, res) => res.redirect("/else"));
  assert.deepEqual([moved.status, moved.header("location")], [307, ["/else"]]);
  await assert.rejects(ask(async (req, res) => { throw new Error("mine"); }), /mine/);
  await assert.rejects(ask((req, res) => { throw new Error("mine"); }), /mine/);
});

test("what is added to a request is its own, and made once", async () => {
  const names = ["query", "cookies", "body", "rawBody"];
  const got = await ask((req, res) => {
    const is = (test) => names.every(test);
    const own = [
      is((name) => Object.hasOwn(req, name)),
      is((name) => Object.keys(req).includes(name)),
      is((name) => req[name] === req[name]),
    ];
    // As frameworks do: they put their own prototype under it, and add to what is there.
    Object.setPrototypeOf(req, Object.create(http.IncomingMessage.prototype));
    req.body.user = "u";
    req.cookies = { ...req.cookies, l: "w" };
    const { query, cookies, body, rawBody } = req;
    res.json([own, query, cookies, body, rawBody.toString()]);
  }, JSON_BODY);
  assert.deepEqual(JSON.parse(got.text()), [
    [true, true, true],
    { a: "1" },
    { k: "v", l: "w" },
    { b: 3, user: "u" },
    '{"b":3}',
  ]);

  const replaced = await ask((req, res) => {
    // Before anything is read of them.
    for (const name of names) req[name] = name;
    req.path = "/changed";
    const { query, cookies, body, rawBody, path } = req;
    res.json([query, cookies, body, rawBody, path]);
  }, JSON_BODY);
  assert.deepEqual(JSON.parse(replaced.text()), [...names, "/changed"]);
});

test("a listener's body is text where its type says so, else bytes", async () => {
  const bodyOf = async (type, body) => {
    const headers = ["host", "h", ...(type === undefined ? [] : ["content-type", type])];
    const listener = (req, res) =>
      res.json(Buffer.isBuffer(req.body) ? [...req.body] : req.body ?? null);
    return JSON.parse((await ask(listener, { method: "POST", headers, body })).text());
  };
  assert.deepEqual(await bodyOf("application/json", "{}"), {});
  assert.deepEqual(await bodyOf("application/x-www-form-urlencoded", "a=b"), { a: "b" });
  assert.equal(await bodyOf("text/plain", "é"), "é");
  for (const type of ["image/png", "application/octet-stream", "multipart/form-data; boundary=x", undefined]) {
    assert.deepEqual(await bodyOf(type, new Uint8Array([255, 0])), [255, 0], type);
  }
  assert.equal(await bodyOf("application/json", null), null);
});

test("a body in pieces that has none is no body", async () => {
  const listener = (req, res) => {
    let length = 0;
    req.on("data", (piece) => (length += piece.length));
    req.on("end", () => res.json([req.body ?? null, length, req.trailers]));
  };
  const send = (...trailers) => (call) => {
    call.receive(new Uint8Array(0), false);
    if (trailers.length === 0) call.receive(new Uint8Array(0), true);
    else call.receiveTrailers(trailers);
  };
  const request = { method: "POST", end: false };
  const got = await ask(listener, request, send());
  assert.deepEqual([got.status, JSON.parse(got.text())], [200, [null, 0, {}]]);
  const trailed = await ask(listener, request, send("x-sum", "0"));
  assert.deepEqual(JSON.parse(trailed.text()), [null, 0, { "x-sum": "0" }]);
});
