/*---
{ "package": "hono", "version": "4.13.19", "tree": "web",
  "exercises": "fetch style: routes, middleware, its JSX, a validator",
  "request": { "path": "/hello/Ada?loud=1" },
  "expect": { "status": 200, "headers": { "x-seen": "yes", "content-type": "text/html; charset=UTF-8" }, "text": "<p>HELLO ADA &amp; co</p>" } }
---*/
/** @jsxImportSource hono/jsx */
import { Hono } from "hono";
import { validator } from "hono/validator";

const app = new Hono();
app.use(async (c, next) => {
  await next();
  c.header("x-seen", "yes");
});
app.get(
  "/hello/:name",
  validator("query", (value) => ({ loud: value.loud === "1" })),
  (c) => {
    const text = `hello ${c.req.param("name")}`;
    return c.html(<p>{c.req.valid("query").loud ? text.toUpperCase() : text} & co</p>);
  },
);
export default app;
