/*---
{ "package": "ioredis", "version": "5.11.1", "tree": "db", "needs": ["redis"],
  "exercises": "pipelines, transactions, a script, publish and subscribe, a scan as a stream",
  "env": { "REDIS": "{redis}" },
  "expect": { "json": { "piped": [1, 5], "doubled": 4, "heard": "ioredis:c news", "scanned": ["ioredis:h", "ioredis:n"] } } }
---*/
import Redis from "ioredis";

export default async () => {
  const redis = new Redis(process.env.REDIS, { maxRetriesPerRequest: 1 });
  const other = redis.duplicate();
  try {
    await redis.del("ioredis:h", "ioredis:l", "ioredis:n");
    const piped = await redis.pipeline().hset("ioredis:h", { a: 1 }).hincrby("ioredis:h", "a", 4).exec();
    await redis.multi().incr("ioredis:n").incr("ioredis:n").exec();
    redis.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('get', KEYS[1]) * 2" });
    const heard = new Promise((resolve) => other.on("message", (channel, text) => resolve(`${channel} ${text}`)));
    await other.subscribe("ioredis:c");
    await redis.publish("ioredis:c", "news");
    return {
      piped: piped.map(([error, value]) => error ?? value),
      doubled: await redis.double("ioredis:n"),
      heard: await heard,
      scanned: await redis.scanStream({ match: "ioredis:*" }).toArray().then((all) => all.flat().sort()),
    };
  } finally {
    redis.disconnect();
    other.disconnect();
  }
};
