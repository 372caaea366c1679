/*---
{ "package": "graphql-yoga", "version": "5.24.1", "tree": "web",
  "exercises": "fetch style: a query, a masked error",
  "request": { "method": "POST", "path": "/graphql", "json": { "query": "{ hello fail }" } },
  "expect": { "status": 200, "json": { "data": { "hello": "world", "fail": null }, "errors": [{ "message": "Unexpected error.", "locations": [{ "line": 1, "column": 9 }], "path": ["fail"], "extensions": { "code": "INTERNAL_SERVER_ERROR" } }] } } }
---*/
import { createSchema, createYoga } from "graphql-yoga";

const yoga = createYoga({
  logging: false,
  schema: createSchema({
    typeDefs: "type Query { hello: String! fail: String }",
    resolvers: { Query: { hello: () => "world", fail: () => { throw new Error("a secret"); } } },
  }),
});
export default { fetch: (request, env, ctx) => yoga.fetch(request, env, ctx) };
