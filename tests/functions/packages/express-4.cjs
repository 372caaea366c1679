/*---
{ "package": "express", "version": "4.22.3", "tree": "web4",
  "exercises": "a listening app: routers, parameters, JSON bodies, cookies, an error handler",
  "request": { "method": "POST", "path": "/api/items/7?x=1", "json": { "n": 1 } },
  "expect": { "status": 201, "headers": { "x-powered-by": "Express", "set-cookie": "a=b; Path=/" }, "json": { "id": "7", "x": "1", "body": { "n": 1 } } } }
---*/
const express = require("express");

const app = express();
const router = express.Router();
router.post("/items/:id", (req, res) => {
  res.cookie("a", "b").status(201).json({ id: req.params.id, x: req.query.x, body: req.body });
});
app.use(express.json());
app.use("/api", router);
app.listen(3000);
