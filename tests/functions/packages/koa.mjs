/*---
{ "package": "koa", "version": "3.3.0", "tree": "web",
  "exercises": "a listening app: middleware around a handler, a stream as body, status and headers",
  "request": { "path": "/x" },
  "expect": { "status": 200, "headers": { "x-order": "in,out", "content-type": "text/plain; charset=utf-8" }, "text": "streamed /x" } }
---*/
import { Readable } from "node:stream";
import Koa from "koa";

const app = new Koa();
app.use(async (ctx, next) => {
  const order = ["in"];
  await next();
  order.push("out");
  ctx.set("x-order", order.join());
});
app.use((ctx) => {
  ctx.type = "text/plain";
  ctx.body = Readable.from(["streamed ", ctx.path]);
});
app.listen(3000);
