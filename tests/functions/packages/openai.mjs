/*---
{ "package": "openai", "version": "6.49.0", "tree": "http", "needs": ["upstream"],
  "exercises": "requests, streaming of server-sent events, typed errors, against a local endpoint of its shape",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "text": "Hello from gpt-x", "streamed": ["Hel", "lo"], "error": ["NotFoundError", 404], "auth": "Bearer key" } } }
---*/
import OpenAI from "openai";

export default async () => {
  const client = new OpenAI({ apiKey: "key", baseURL: `${process.env.UPSTREAM}/openai/v1`, maxRetries: 0 });
  const messages = [{ role: "user", content: "hi" }];
  const { data, response } = await client.chat.completions.create({ model: "gpt-x", messages }).withResponse();
  const streamed = [];
  const stream = await client.chat.completions.create({ model: "gpt-x", messages, stream: true });
  for await (const part of stream) streamed.push(part.choices[0].delta.content);
  const error = await client.models.retrieve("none").catch((error) => [error.constructor.name, error.status]);
  return { text: data.choices[0].message.content, streamed, error, auth: response.headers.get("x-authorization") };
};
