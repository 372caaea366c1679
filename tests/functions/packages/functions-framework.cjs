/*---
{ "package": "@google-cloud/functions-framework", "version": "5.0.5", "tree": "web4",
  "exercises": "an HTTP function as it is written for Google: registered, and nothing more",
  "request": { "method": "POST", "path": "/?name=Ada", "json": { "n": 1 } },
  "expect": { "status": 200, "json": { "name": "Ada", "n": 1, "raw": "{\"n\":1}" } } }
---*/
const functions = require("@google-cloud/functions-framework");

functions.http("hello", (req, res) => {
  res.json({ name: req.query.name, n: req.body.n, raw: req.rawBody.toString() });
});
