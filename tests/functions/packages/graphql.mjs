/*---
{ "package": "graphql", "version": "16.15.0", "tree": "web",
  "exercises": "a schema built from text, resolvers, validation, introspection",
  "request": { "method": "POST", "json": { "query": "query ($n: Int!) { double(n: $n) people { name } }", "variables": { "n": 21 } } },
  "expect": { "json": { "data": { "double": 42, "people": [{ "name": "Ada" }] }, "errors": ["Cannot query field \"nope\" on type \"Query\"."], "types": ["Person", "Query"] } } }
---*/
import { buildSchema, graphql, parse, printSchema, validate } from "graphql";

const schema = buildSchema("type Person { name: String! } type Query { double(n: Int!): Int! people: [Person!]! }");
const rootValue = { double: ({ n }) => n * 2, people: async () => [{ name: () => "Ada" }] };

export default async ({ body }) => ({
  data: (await graphql({ schema, rootValue, source: body.query, variableValues: body.variables })).data,
  errors: validate(schema, parse("{ nope }")).map((error) => error.message),
  types: printSchema(schema).match(/type \w+/g).map((type) => type.slice(5)).sort(),
});
