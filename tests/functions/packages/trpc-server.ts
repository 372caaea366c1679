/*---
{ "package": "@trpc/server", "version": "11.25.2", "tree": "serverless",
  "also": { "zod": "4.6.7" },
  "exercises": "its fetch adapter: an input checked by zod, a batch with an error",
  "request": { "path": "/trpc/greet,fail?batch=1&input=%7B%220%22%3A%7B%22name%22%3A%22Ada%22%7D%7D" },
  "expect": { "status": 207, "json": [{ "result": { "data": "hello Ada" } }, { "error": { "message": "not you", "code": "FORBIDDEN" } }] } }
---*/
import { initTRPC, TRPCError } from "@trpc/server";
import { fetchRequestHandler } from "@trpc/server/adapters/fetch";
import { z } from "zod";

const t = initTRPC.create({ errorFormatter: ({ shape }) => ({ message: shape.message, code: shape.data.code }) });
const router = t.router({
  greet: t.procedure.input(z.object({ name: z.string() })).query(({ input }) => `hello ${input.name}`),
  fail: t.procedure.query(() => {
    throw new TRPCError({ code: "FORBIDDEN", message: "not you" });
  }),
});

export default {
  fetch: (req: Request): Promise<Response> => fetchRequestHandler({ endpoint: "/trpc", req, router }),
};
