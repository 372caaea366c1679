/*---
{ "package": "polka", "version": "0.5.2", "tree": "serverless",
  "exercises": "a listening app: middleware, parameters, an error handler",
  "request": { "path": "/users/9?z=1" },
  "expect": { "headers": { "x-seen": "yes" }, "text": "9 1" } }
---*/
import polka from "polka";

polka({ onError: (error, _request, response) => response.end(`caught ${error.message}`) })
  .use((_request, response, next) => {
    response.setHeader("x-seen", "yes");
    next();
  })
  .get("/users/:id", (request, response) => response.end(`${request.params.id} ${request.query.z}`))
  .listen(3000);
