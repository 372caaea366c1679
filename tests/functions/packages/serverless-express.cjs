/*---
{ "package": "@codegenie/serverless-express", "version": "4.17.1", "tree": "web4", "also": { "express": "4.22.3" },
  "exercises": "an Express app behind a Lambda handler: bodies, status, the event at hand",
  "request": { "method": "POST", "path": "/items/7?x=1", "json": { "n": 1 } },
  "expect": { "status": 201, "json": { "id": "7", "x": "1", "body": { "n": 1 }, "event": "2.0" } } }
---*/
const express = require("express");
const serverlessExpress = require("@codegenie/serverless-express");

const app = express();
app.use(express.json());
app.post("/items/:id", (req, res) => {
  const { event } = serverlessExpress.getCurrentInvoke();
  res.status(201).json({ id: req.params.id, x: req.query.x, body: req.body, event: event.version });
});
exports.handler = serverlessExpress({ app });
