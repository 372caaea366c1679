/*---
{ "package": "redis", "version": "6.3.1", "tree": "db", "needs": ["redis"],
  "exercises": "hashes, sorted sets, expiry, blocking pops, iteration",
  "env": { "REDIS": "{redis}" },
  "expect": { "json": { "hash": { "a": "1", "b": "2" }, "top": ["grace"], "ttl": true, "popped": "job" } } }
---*/
import { createClient } from "redis";

export default async () => {
  const client = createClient({ url: process.env.REDIS });
  await client.connect();
  try {
    await client.del(["redis:h", "redis:z", "redis:l", "redis:t"]);
    await client.hSet("redis:h", { a: "1", b: "2" });
    await client.zAdd("redis:z", [{ score: 1, value: "ada" }, { score: 2, value: "grace" }]);
    await client.set("redis:t", "x", { expiration: { type: "EX", value: 60 } });
    const other = client.duplicate();
    await other.connect();
    const pop = other.blPop("redis:l", 4);
    await client.rPush("redis:l", "job");
    const popped = (await pop).element;
    other.destroy();
    return {
      hash: { ...(await client.hGetAll("redis:h")) },
      top: await client.zRange("redis:z", 0, 0, { REV: true }),
      ttl: (await client.ttl("redis:t")) > 50,
      popped,
    };
  } finally {
    client.destroy();
  }
};
