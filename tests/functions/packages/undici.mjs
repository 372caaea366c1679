/*---
{ "package": "undici", "version": "7.30.2", "tree": "http", "needs": ["upstream"],
  "exercises": "request, a pool, its own fetch, a mock agent",
  "env": { "UPSTREAM": "{upstream}" },
  "expect": { "json": { "request": [200, "GET"], "pool": ["/echo?1", "/echo?2"], "fetch": "PUT", "mocked": "from the mock" } } }
---*/
import { MockAgent, Pool, fetch, request } from "undici";

export default async () => {
  const { statusCode, body } = await request(`${process.env.UPSTREAM}/echo`);
  const pool = new Pool(process.env.UPSTREAM, { connections: 2 });
  const urls = await Promise.all([1, 2].map(async (n) => {
    const answer = await pool.request({ method: "GET", path: `/echo?${n}` });
    return (await answer.body.json()).url;
  }));
  await pool.close();
  const agent = new MockAgent();
  agent.disableNetConnect();
  agent.get("http://mock.example").intercept({ path: "/x" }).reply(200, "from the mock");
  const mocked = await request("http://mock.example/x", { dispatcher: agent });
  return {
    request: [statusCode, (await body.json()).method],
    pool: urls,
    fetch: (await (await fetch(`${process.env.UPSTREAM}/echo`, { method: "PUT" })).json()).method,
    mocked: await mocked.body.text(),
  };
};
