/*---
{ "package": "@middy/core", "version": "6.4.5", "tree": "serverless",
  "also": { "@middy/http-cors": "6.4.5", "@middy/http-error-handler": "6.4.5", "@middy/http-json-body-parser": "6.4.5" },
  "exercises": "a Lambda handler with its middleware: JSON bodies, CORS, errors",
  "limits": { "eventFormat": "lambda" },
  "request": { "method": "POST", "text": "{\"n\":3}", "headers": { "content-type": "application/json", "origin": "http://a.example" } },
  "expect": { "status": 201, "headers": { "access-control-allow-origin": "*" }, "json": { "n": 4 } } }
---*/
import middy from "@middy/core";
import cors from "@middy/http-cors";
import errors from "@middy/http-error-handler";
import json from "@middy/http-json-body-parser";

export const handler = middy(async (event) => ({
  statusCode: 201,
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ n: event.body.n + 1 }),
}))
  .use(json())
  .use(cors({ origin: "*" }))
  .use(errors());
