/*---
{ "package": "itty-router", "version": "5.0.24", "tree": "web",
  "exercises": "fetch style: parameters, JSON, errors",
  "request": { "path": "/items/7?x=1" },
  "expect": { "status": 200, "json": { "id": "7", "query": { "x": "1" } } } }
---*/
import { AutoRouter } from "itty-router";

const router = AutoRouter();
router.get("/items/:id", ({ params, query }) => ({ id: params.id, query }));
export default router;
