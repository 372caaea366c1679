/*---
{ "package": "@apollo/server", "version": "5.5.1", "tree": "web",
  "exercises": "a schema with resolvers over its HTTP layer (CSRF prevention, error codes)",
  "expect": { "json": { "data": { "add": 5 }, "status": 400, "code": "GRAPHQL_VALIDATION_FAILED" } } }
---*/
import { ApolloServer, HeaderMap } from "@apollo/server";

const server = new ApolloServer({
  typeDefs: "type Query { add(a: Int!, b: Int!): Int! }",
  resolvers: { Query: { add: (_, { a, b }) => a + b } },
});
await server.start();

const ask = async (query) => {
  const { status, body } = await server.executeHTTPGraphQLRequest({
    httpGraphQLRequest: {
      method: "POST",
      headers: new HeaderMap([["content-type", "application/json"]]),
      search: "",
      body: { query },
    },
    context: async () => ({}),
  });
  return { status, ...JSON.parse(body.string) };
};

export default async () => {
  const bad = await ask("{ nope }");
  return { data: (await ask("{ add(a: 2, b: 3) }")).data, status: bad.status, code: bad.errors[0].extensions.code };
};
