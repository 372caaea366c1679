/*---
{ "package": "node-fetch", "version": "3.3.2", "tree": "http", "needs": ["upstream"],
  "exercises": "requests, redirects, multipart forms, streams as bodies, abort (ESM only)",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "redirected": true, "form": true, "streamed": "abc", "aborted": "AbortError" } } }
---*/
import { Readable } from "node:stream";
import fetch, { FormData } from "node-fetch";

export default async () => {
  const at = (path) => process.env.UPSTREAM + path;
  const moved = await fetch(at("/redirect"));
  const form = new FormData();
  form.set("field", "value");
  const formed = await (await fetch(at("/echo"), { method: "POST", body: form })).json();
  const streamed = await (await fetch(at("/echo"), { method: "POST", body: Readable.from(["a", "b", "c"]) })).json();
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 20);
  return {
    redirected: moved.redirected && moved.url.endsWith("/echo"),
    form: formed.headers["content-type"].startsWith("multipart/form-data") && formed.body.includes("value"),
    streamed: streamed.body,
    aborted: await fetch(at("/never"), { signal: stop.signal }).catch((error) => error.name),
  };
};
