/*---
{ "package": "express", "version": "5.3.0", "tree": "web",
  "exercises": "a listening app: a rejected async handler reaches the error handler, named wildcards",
  "request": { "path": "/fail/a/b" },
  "expect": { "status": 503, "json": { "message": "no a/b" } } }
---*/
import express from "express";

const app = express();
app.get("/fail/*rest", async (req) => {
  throw Object.assign(new Error(`no ${req.params.rest.join("/")}`), { status: 503 });
});
app.use((error, req, res, next) => res.status(error.status).json({ message: error.message }));
app.listen(3000);
