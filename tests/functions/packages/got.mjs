/*---
{ "package": "got", "version": "14.6.6", "tree": "http", "needs": ["upstream"],
  "exercises": "JSON, retries of a failing server, streams, errors (ESM only)",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "posted": "{\"n\":1}", "retries": 2, "streamed": 65536, "code": 404 } } }
---*/
import got from "got";

export default async () => {
  const client = got.extend({ prefixUrl: process.env.UPSTREAM });
  const { body } = await client.post("echo", { json: { n: 1 } }).json();
  const retry = { limit: 3, calculateDelay: ({ computedValue }) => (computedValue ? 1 : 0) };
  const flaky = await client.get(`flaky/got-${Math.random()}`, { retry });
  let streamed = 0;
  for await (const chunk of client.stream("bytes/65536")) streamed += chunk.length;
  return {
    posted: body,
    retries: flaky.retryCount,
    streamed,
    code: await client.get("status/404").catch((error) => error.response.statusCode),
  };
};
