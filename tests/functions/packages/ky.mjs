/*---
{ "package": "ky", "version": "1.14.3", "tree": "http", "needs": ["upstream"],
  "exercises": "JSON, hooks, retries, HTTPError over the global fetch (ESM only)",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "posted": "{\"n\":1}", "hooked": "yes", "flaky": "third time", "status": 404 } } }
---*/
import ky from "ky";

export default async () => {
  const client = ky.create({
    prefixUrl: process.env.UPSTREAM,
    retry: { limit: 3, delay: () => 1 },
    hooks: { beforeRequest: [(request) => request.headers.set("x-hooked", "yes")] },
  });
  const echoed = await client.post("echo", { json: { n: 1 } }).json();
  return {
    posted: echoed.body,
    hooked: echoed.headers["x-hooked"],
    flaky: await client.get(`flaky/ky-${Math.random()}`).text(),
    status: await client.get("status/404").catch((error) => error.response.status),
  };
};
