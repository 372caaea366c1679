/*---
{ "package": "@vendia/serverless-express", "version": "4.12.6", "tree": "web4",
  "also": { "express": "4.22.3" },
  "exercises": "an Express app behind a Lambda handler: bodies, status, headers",
  "request": { "method": "POST", "path": "/items/7?x=1", "json": { "n": 1 } },
  "expect": { "status": 201, "json": { "id": "7", "x": "1", "body": { "n": 1 } } } }
---*/
const serverlessExpress = require("@vendia/serverless-express");
const express = require("express");

const app = express();
app.use(express.json());
app.post("/items/:id", (req, res) => res.status(201).json({ id: req.params.id, x: req.query.x, body: req.body }));

exports.handler = serverlessExpress({ app });
