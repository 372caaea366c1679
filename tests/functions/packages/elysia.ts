/*---
{ "package": "elysia", "version": "1.4.30", "tree": "serverless",
  "exercises": "fetch style: typed parameters and bodies, a plugin, errors",
  "request": { "method": "POST", "path": "/users/4", "json": { "name": "Ada" } },
  "expect": { "json": { "id": 4, "text": "hello Ada" } } }
---*/
import { Elysia, t } from "elysia";

const greeting = new Elysia({ name: "greeting" }).decorate("greet", (name: string) => `hello ${name}`);

export default new Elysia()
  .use(greeting)
  .post("/users/:id", ({ params, body, greet }) => ({ id: params.id, text: greet(body.name) }), {
    body: t.Object({ name: t.String() }),
    params: t.Object({ id: t.Numeric() }),
  });
