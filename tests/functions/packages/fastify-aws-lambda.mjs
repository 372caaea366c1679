/*---
{ "package": "@fastify/aws-lambda", "version": "6.4.1", "tree": "web",
  "also": { "fastify": "5.12.8" },
  "exercises": "a Fastify app behind a Lambda handler: bodies, status, the event at hand",
  "request": { "method": "POST", "path": "/items/7?x=1", "json": { "n": 1 } },
  "expect": { "status": 201, "json": { "id": "7", "x": "1", "body": { "n": 1 }, "rawPath": "/items/7" } } }
---*/
import awsLambdaFastify from "@fastify/aws-lambda";
import Fastify from "fastify";

const app = Fastify();
app.post("/items/:id", async (request, reply) => {
  const { rawPath } = request.awsLambda.event;
  return reply.code(201).send({ id: request.params.id, x: request.query.x, body: request.body, rawPath });
});

export const handler = awsLambdaFastify(app);
