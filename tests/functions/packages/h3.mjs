/*---
{ "package": "h3", "version": "2.0.8", "tree": "web",
  "exercises": "fetch style: routes, bodies, HTTPError",
  "request": { "method": "POST", "path": "/items/7", "json": { "n": 1 } },
  "expect": { "status": 409, "json": { "status": 409, "statusText": "Taken", "message": "7 is 1" } } }
---*/
import { H3, HTTPError, readBody } from "h3";

const app = new H3();
app.post("/items/:id", async (event) => {
  const body = await readBody(event);
  throw new HTTPError({ status: 409, statusText: "Taken", message: `${event.context.params.id} is ${body.n}` });
});
export default app;
