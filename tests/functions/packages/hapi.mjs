/*---
{ "package": "@hapi/hapi", "version": "21.4.10", "tree": "serverless",
  "also": { "@hapi/boom": "10.0.1", "joi": "18.3.2" },
  "exercises": "a listening server: a payload checked by joi, a cookie, Boom's errors",
  "request": { "method": "POST", "path": "/items/5?x=1", "json": { "n": 2 } },
  "expect": { "status": 201, "headers": { "x-made": "yes" }, "json": { "id": "5", "x": "1", "n": 2 } } }
---*/
import Boom from "@hapi/boom";
import Hapi from "@hapi/hapi";
import Joi from "joi";

const server = Hapi.server({ port: 3000 });
server.route({
  method: "POST",
  path: "/items/{id}",
  options: { validate: { payload: Joi.object({ n: Joi.number().required() }) } },
  handler(request, h) {
    const { id } = request.params;
    if (id === "0") throw Boom.notFound("no such item");
    return h.response({ id, x: request.query.x, n: request.payload.n }).code(201).header("x-made", "yes");
  },
});
await server.start();
