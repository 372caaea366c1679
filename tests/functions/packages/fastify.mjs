/*---
{ "package": "fastify", "version": "5.12.8", "tree": "web",
  "exercises": "a listening app: schema validation, hooks, serialisation, plugins",
  "request": { "method": "POST", "path": "/v1/sum", "json": { "ns": [1, 2, "3"] } },
  "expect": { "status": 200, "headers": { "x-hook": "ran" }, "json": { "sum": 6 } } }
---*/
import Fastify from "fastify";

const app = Fastify();
app.addHook("onSend", async (request, reply) => void reply.header("x-hook", "ran"));
app.register(async (scope) => {
  scope.post("/sum", {
    schema: {
      body: { type: "object", required: ["ns"], properties: { ns: { type: "array", items: { type: "number" } } } },
      response: { 200: { type: "object", properties: { sum: { type: "number" } } } },
    },
  }, async ({ body }) => ({ sum: body.ns.reduce((a, b) => a + b), hidden: true }));
}, { prefix: "/v1" });
await app.listen({ port: 3000 });
