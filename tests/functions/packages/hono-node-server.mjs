/*---
{ "package": "@hono/node-server", "version": "2.1.9", "tree": "web",
  "also": { "hono": "4.13.19" },
  "exercises": "a listening app: a streamed answer",
  "request": { "path": "/stream" },
  "expect": { "text": "one, two" } }
---*/
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { streamText } from "hono/streaming";

const app = new Hono();
app.get("/stream", (c) =>
  streamText(c, async (stream) => {
    await stream.write("one, ");
    await stream.sleep(5);
    await stream.write("two");
  }));
serve({ fetch: app.fetch, port: 3000 });
