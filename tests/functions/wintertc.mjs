// The Minimum Common Web API (ECMA-429): what must be there, and that each part does what it is
// for. Answers with what is missing or wrong.

const INTERFACES = `
  AbortController AbortSignal Blob ByteLengthQueuingStrategy CompressionStream
  CountQueuingStrategy Crypto CryptoKey CustomEvent DOMException DecompressionStream ErrorEvent
  Event EventTarget File FormData Headers MessageChannel MessageEvent MessagePort
  PromiseRejectionEvent ReadableByteStreamController ReadableStream ReadableStreamBYOBReader
  ReadableStreamBYOBRequest ReadableStreamDefaultController ReadableStreamDefaultReader Request
  Response SubtleCrypto TextDecoder TextDecoderStream TextEncoder TextEncoderStream
  TransformStream TransformStreamDefaultController URL URLPattern URLSearchParams WritableStream
  WritableStreamDefaultController WritableStreamDefaultWriter`.trim().split(/\s+/);

const WEBASSEMBLY = `
  CompileError Exception Global Instance LinkError Memory Module RuntimeError Table Tag`
  .trim().split(/\s+/);

const FUNCTIONS = `
  atob btoa clearInterval clearTimeout fetch queueMicrotask reportError setInterval setTimeout
  structuredClone`.trim().split(/\s+/);

const WEBASSEMBLY_FUNCTIONS = ["compile", "compileStreaming", "instantiate", "instantiateStreaming", "validate"];

// (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))
const ADD = Uint8Array.from(
  "0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b"
    .match(/../g),
  (byte) => parseInt(byte, 16),
);

const bytes = (text) => new TextEncoder().encode(text);
const text = (buffer) => new TextDecoder().decode(buffer);
const hex = (buffer) => new Uint8Array(buffer).toHex();
const stream = (...pieces) => ReadableStream.from(pieces);
const read = (readable) => Array.fromAsync(readable);
const thrown = (f) => {
  try {
    f();
  } catch (error) {
    return error;
  }
};
const once = (target, type) => new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));

/** Each is to be equal to what is beside it. */
const BEHAVIOUR = {
  "globalThis and self": () => [self === globalThis, true],
  "base64": () => [[btoa("a\xff"), atob(" YQ== ")], ["Yf8=", "a"]],
  "base64 refuses what is none": () => [thrown(() => atob("*")).name, "InvalidCharacterError"],
  "an abort": () => {
    const controller = new AbortController();
    const any = AbortSignal.any([controller.signal, new AbortController().signal]);
    controller.abort("why");
    return [[any.aborted, any.reason, AbortSignal.abort().reason.name], [true, "why", "AbortError"]];
  },
  "an abort after a time": async () => {
    const signal = AbortSignal.timeout(1);
    await once(signal, "abort");
    return [signal.reason.name, "TimeoutError"];
  },
  "events": () => {
    const target = new EventTarget();
    const seen = [];
    target.addEventListener("x", (event) => seen.push(event.detail, event.cancelable), { once: true });
    const event = () => new CustomEvent("x", { detail: 7, cancelable: true });
    target.dispatchEvent(event());
    target.dispatchEvent(event());
    return [seen, [7, true]];
  },
  "an error that is reported": async () => {
    const heard = once(globalThis, "error");
    addEventListener("error", (event) => event.preventDefault(), { once: true });
    reportError(new RangeError("r"));
    const event = await heard;
    return [[event instanceof ErrorEvent, event.error.name], [true, "RangeError"]];
  },
  "a rejection that nobody handles": async () => {
    const heard = once(globalThis, "unhandledrejection");
    addEventListener("unhandledrejection", (event) => event.preventDefault(), { once: true });
    Promise.reject(new RangeError("r"));
    const event = await heard;
    return [[event instanceof PromiseRejectionEvent, event.reason.name], [true, "RangeError"]];
  },
  "a rejection that is handled later": async () => {
    addEventListener("unhandledrejection", (event) => event.preventDefault(), { once: true });
    const unhandled = once(globalThis, "unhandledrejection");
    const heard = new Promise((resolve) => (globalThis.onrejectionhandled = resolve));
    const rejected = Promise.reject(new RangeError("r"));
    await unhandled;
    rejected.catch(() => {});
    const event = await heard;
    globalThis.onrejectionhandled = null;
    return [[event.reason.name, event.promise === rejected], ["RangeError", true]];
  },
  "handlers of errors as properties": () => [
    ["onerror", "onunhandledrejection", "onrejectionhandled"].filter((name) => !(name in globalThis)),
    [],
  ],
  "a blob and a file": async () => {
    const file = new File([new Blob(["ab"]), "c"], "n.txt", { type: "text/plain" });
    const part = file.slice(1);
    return [[file.name, file.type, file.size, await part.text(), hex(await part.arrayBuffer())],
      ["n.txt", "text/plain", 3, "bc", "6263"]];
  },
  "a form": async () => {
    const form = new FormData();
    form.append("a", "1");
    form.append("f", new File(["x"], "f.bin"));
    const got = await new Response(form).formData();
    return [[got.get("a"), got.get("f").name, await got.get("f").text()], ["1", "f.bin", "x"]];
  },
  "an urlencoded form": async () => {
    const got = await new Response(new URLSearchParams({ a: "ü" })).formData();
    return [got.get("a"), "ü"];
  },
  "headers": () => {
    const headers = new Headers([["Set-Cookie", "a"], ["set-cookie", "b"], ["X", "1"]]);
    headers.append("x", "2");
    return [[headers.get("X"), headers.getSetCookie(), [...headers.keys()]],
      ["1, 2", ["a", "b"], ["set-cookie", "set-cookie", "x"]]];
  },
  "a request": async () => {
    const request = new Request("https://a.test/b?c", { method: "post", body: stream(bytes("x")), duplex: "half" });
    const copy = request.clone();
    return [[request.method, request.url, await copy.text(), await request.text(), request.bodyUsed],
      ["POST", "https://a.test/b?c", "x", "x", true]];
  },
  "a response": async () => {
    const response = Response.json({ a: 1 }, { status: 201 });
    return [[response.ok, response.status, response.headers.get("content-type"), await response.json(),
      Response.error().type, Response.redirect("https://a.test/", 303).status],
    [true, 201, "application/json", { a: 1 }, "error", 303]];
  },
  "a fetch of data": async () => {
    const response = await fetch("data:text/plain;base64,aGk=");
    return [[await response.text(), response.headers.get("content-type")], ["hi", "text/plain"]];
  },
  "a fetch that is aborted": async () => {
    const error = await fetch("https://example.test/", { signal: AbortSignal.abort() }).catch((e) => e);
    return [error.name, "AbortError"];
  },
  "messages": async () => {
    const { port1, port2 } = new MessageChannel();
    const heard = new Promise((resolve) => (port2.onmessage = resolve));
    port1.postMessage({ a: new Map([[1, 2]]) });
    const event = await heard;
    port1.close();
    return [[event instanceof MessageEvent, event.data.a.get(1)], [true, 2]];
  },
  "a message whose buffer is handed over": async () => {
    const { port1, port2 } = new MessageChannel();
    const heard = new Promise((resolve) => (port2.onmessage = resolve));
    const buffer = new ArrayBuffer(3);
    port1.postMessage(buffer, [buffer]);
    const got = (await heard).data.byteLength;
    port1.close();
    return [[got, buffer.byteLength], [3, 0]];
  },
  "a structured clone": () => {
    const buffer = new ArrayBuffer(2);
    const copy = structuredClone({ d: new Date(0), r: /x/g, b: buffer }, { transfer: [buffer] });
    const error = thrown(() => structuredClone(() => {}));
    return [[copy.d.getTime(), copy.r.flags, copy.b.byteLength, buffer.byteLength, error.name],
      [0, "g", 2, 0, "DataCloneError"]];
  },
  "a stream read byte by byte into a buffer": async () => {
    const source = new ReadableStream({
      type: "bytes",
      pull(controller) {
        controller.byobRequest.view[0] = 65;
        controller.byobRequest.respond(1);
      },
    });
    const { value } = await source.getReader({ mode: "byob" }).read(new Uint8Array(4));
    return [text(value), "A"];
  },
  "a stream divided": async () => {
    const [a, b] = stream(1, 2).tee();
    return [[await read(a), await read(b)], [[1, 2], [1, 2]]];
  },
  "a transformation": async () => {
    const twice = new TransformStream({ transform: (n, controller) => controller.enqueue(2 * n) });
    return [await read(stream(1, 2).pipeThrough(twice)), [2, 4]];
  },
  "a sink with back-pressure": async () => {
    const seen = [];
    const sink = new WritableStream({ write: (piece) => void seen.push(piece) },
      new CountQueuingStrategy({ highWaterMark: 2 }));
    const writer = sink.getWriter();
    const wanted = writer.desiredSize;
    await writer.write("a");
    await writer.close();
    return [[wanted, seen, new ByteLengthQueuingStrategy({ highWaterMark: 9 }).highWaterMark], [2, ["a"], 9]];
  },
  "text in pieces": async () => {
    const umlaut = bytes("ü");
    const decoded = await read(stream(umlaut.slice(0, 1), umlaut.slice(1)).pipeThrough(new TextDecoderStream()));
    const encoded = await read(stream("ü").pipeThrough(new TextEncoderStream()));
    return [[decoded.join(""), hex(encoded[0])], ["ü", "c3bc"]];
  },
  "text of other encodings": () => [
    [new TextDecoder("utf-16le").decode(Uint8Array.of(0x41, 0)), new TextDecoder("latin1").encoding,
      thrown(() => new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.of(255))).name],
    ["A", "windows-1252", "TypeError"],
  ],
  "text into a buffer": () => [new TextEncoder().encodeInto("aü", new Uint8Array(2)), { read: 1, written: 1 }],
  "compression": async () => {
    const seen = [];
    for (const format of ["gzip", "deflate", "deflate-raw"]) {
      const packed = stream(bytes("a".repeat(99))).pipeThrough(new CompressionStream(format));
      const plain = packed.pipeThrough(new DecompressionStream(format));
      seen.push((await new Response(plain).text()).length);
    }
    return [seen, [99, 99, 99]];
  },
  "random numbers": () => [
    [crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(64)).some(Boolean)],
    [36, true],
  ],
  "a digest": async () => [
    hex(await crypto.subtle.digest("SHA-256", bytes("abc"))).slice(0, 8),
    "ba7816bf",
  ],
  "encryption": async () => {
    const name = { name: "AES-GCM", length: 256 };
    const key = await crypto.subtle.generateKey(name, true, ["encrypt", "decrypt"]);
    const by = { name: "AES-GCM", iv: new Uint8Array(12) };
    const sealed = await crypto.subtle.encrypt(by, key, bytes("secret"));
    return [[key instanceof CryptoKey, text(await crypto.subtle.decrypt(by, key, sealed))], [true, "secret"]];
  },
  "signatures": async () => {
    const by = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
    const { privateKey, publicKey } = await crypto.subtle.generateKey(by, false, ["sign", "verify"]);
    const signature = await crypto.subtle.sign(by, privateKey, bytes("a"));
    return [await crypto.subtle.verify(by, publicKey, signature, bytes("a")), true];
  },
  "an address": () => {
    const url = new URL("../b?x=1#y", "https://ü.test:8443/a/");
    url.searchParams.append("z", "&");
    return [[url.href, URL.canParse("nothing"), URL.parse("nothing")],
      ["https://xn--tda.test:8443/b?x=1&z=%26#y", false, null]];
  },
  "a pattern of addresses": () => [
    new URLPattern({ pathname: "/books/:id" }).exec("https://a.test/books/7").pathname.groups.id,
    "7",
  ],
  "parameters": () => {
    const parameters = new URLSearchParams("b=2&a=1&b=3");
    parameters.sort();
    return [[`${parameters}`, parameters.getAll("b"), parameters.has("b", "3"), parameters.size],
      ["a=1&b=2&b=3", ["2", "3"], true, 3]];
  },
  "order of tasks": async () => {
    const order = [];
    await new Promise((resolve) => {
      setTimeout((last) => resolve(order.push(last)), 0, "timer");
      const interval = setInterval(() => order.push("never"), 1000);
      clearInterval(interval);
      clearTimeout(setTimeout(() => order.push("never"), 0));
      queueMicrotask(() => order.push("microtask"));
      order.push("now");
    });
    return [order, ["now", "microtask", "timer"]];
  },
  "clocks": () => [
    [performance.now() > 0, Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 60_000],
    [true, true],
  ],
  "the user agent": () => [typeof navigator.userAgent, "string"],
  "an exception": () => {
    const error = new DOMException("m", "DataCloneError");
    return [[error.code, error instanceof Error, `${error}`], [25, true, "DataCloneError: m"]];
  },
  "WebAssembly": async () => {
    const { instance } = await WebAssembly.instantiate(ADD);
    return [[instance.exports.add(2, 3), WebAssembly.validate(ADD.slice(1))], [5, false]];
  },
  "WebAssembly as it comes": async () => {
    const answer = new Response(ADD, { headers: { "content-type": "application/wasm" } });
    const { instance } = await WebAssembly.instantiateStreaming(answer);
    return [instance.exports.add(2, 3), 5];
  },
  "the console": () => [
    ["assert", "clear", "count", "countReset", "debug", "dir", "dirxml", "error", "group", "groupCollapsed",
      "groupEnd", "info", "log", "table", "time", "timeEnd", "timeLog", "trace", "warn"]
      .filter((name) => typeof console[name] !== "function"),
    [],
  ],
};

export default async function () {
  const wrong = [];
  const expectFunctions = (place, names, where) => {
    for (const name of names) {
      if (typeof place[name] !== "function") wrong.push(`${where}${name} is not there`);
    }
  };
  expectFunctions(globalThis, INTERFACES, "");
  expectFunctions(globalThis, FUNCTIONS, "");
  expectFunctions(WebAssembly, WEBASSEMBLY, "WebAssembly.");
  expectFunctions(WebAssembly, WEBASSEMBLY_FUNCTIONS, "WebAssembly.");
  let checked = 0;
  for (const [what, check] of Object.entries(BEHAVIOUR)) {
    checked += 1;
    try {
      const [got, expected] = await check();
      if (JSON.stringify(got) !== JSON.stringify(expected)) {
        wrong.push(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
      }
    } catch (error) {
      wrong.push(`${what}: ${error.stack}`);
    }
  }
  return { checked, wrong };
}
