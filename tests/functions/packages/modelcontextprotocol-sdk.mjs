/*---
{ "package": "@modelcontextprotocol/sdk", "version": "1.32.2", "tree": "serverless",
  "also": { "zod": "4.6.7" },
  "exercises": "a server over streamable HTTP: a tool is called, its input checked",
  "request": { "method": "POST", "path": "/mcp", "json": { "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "add", "arguments": { "a": 1, "b": 2 } } }, "headers": { "accept": "application/json, text/event-stream" } },
  "expect": { "json": { "result": { "content": [{ "type": "text", "text": "3" }] }, "jsonrpc": "2.0", "id": 1 } } }
---*/
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { z } from "zod";

export default {
  async fetch(request) {
    const server = new McpServer({ name: "sums", version: "1.0.0" });
    server.registerTool("add", { inputSchema: { a: z.number(), b: z.number() } }, async ({ a, b }) => ({
      content: [{ type: "text", text: String(a + b) }],
    }));
    const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
    await server.connect(transport);
    return transport.handleRequest(request);
  },
};
