import assert from "node:assert/strict";
import { test } from "node:test";
import { captured } from "ext:cloudserve/capture.js";
import { captureFetchEvents } from "ext:cloudserve/fetch_event.js";

const request = new Request("http://h/");
const kept = [];
const ctx = { waitUntil: (promise) => void kept.push(promise) };

/** What is answered by listeners that are added one after the other. */
async function answerOf(...listeners) {
  const global = new EventTarget();
  captured.fetch = null;
  captureFetchEvents(global);
  for (const listener of listeners) global.addEventListener("fetch", listener);
  return await captured.fetch(request, {}, ctx);
}

test("the first listener that responds answers", async () => {
  const silent = () => {};
  const first = (event) => event.respondWith("first");
  const second = (event) => event.respondWith(Promise.resolve("second"));
  assert.equal(await answerOf(first, second), "first");
  assert.equal(await answerOf(silent, second, first), "second");
  assert.equal(await answerOf({ handleEvent: second }), "second");
  await assert.rejects(answerOf(silent), /no listener of "fetch" has called/);
  await assert.rejects(answerOf((event) => (first(event), second(event))), /one answer/);
  await assert.rejects(answerOf(() => { throw new RangeError("own"); }), RangeError);
});

test("an event is as Workers have it", async () => {
  const seen = await answerOf((event) => {
    event.passThroughOnException();
    event.waitUntil("kept");
    event.respondWith([event.type, event.request === request, event instanceof Event]);
  });
  assert.deepEqual(seen, ["fetch", true, true]);
  assert.deepEqual(kept, ["kept"]);
  let later;
  await answerOf((event) => {
    later = event;
    event.respondWith("x");
  });
  assert.throws(() => later.respondWith("y"), /before the listener returns/);
});

test("a listener that was removed is not called", async () => {
  const global = new EventTarget();
  captured.fetch = null;
  captureFetchEvents(global);
  const first = (event) => event.respondWith("first");
  const second = (event) => event.respondWith("second");
  for (const listener of [first, first, second]) global.addEventListener("fetch", listener);
  global.removeEventListener("fetch", first);
  global.removeEventListener("fetch", () => {});
  assert.equal(await captured.fetch(request, {}, ctx), "second");
  global.removeEventListener("fetch", second);
  assert.equal(captured.fetch, null);
  global.addEventListener("fetch", first);
  assert.equal(await captured.fetch(request, {}, ctx), "first");
});

test("other events are the engine's", () => {
  const global = new EventTarget();
  captured.fetch = null;
  captureFetchEvents(global);
  let heard = 0;
  global.addEventListener("ping", () => heard++, { once: true });
  const removed = () => heard++;
  global.addEventListener("ping", removed);
  global.removeEventListener("ping", removed);
  global.addEventListener("fetch", null);
  global.dispatchEvent(new Event("ping"));
  global.dispatchEvent(new Event("ping"));
  assert.equal(heard, 1);
  assert.equal(captured.fetch, null);
});
