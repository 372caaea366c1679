/*---
{ "package": "ioredis", "version": "6.0.0", "tree": "db", "needs": ["redis"],
  "exercises": "pipelines, transactions, a Lua script, subscriptions",
  "env": { "REDIS": "{redis}" },
  "expect": { "json": { "pipeline": [1, 2, "2"], "multi": ["OK", 3], "script": "AB", "message": ["ioredis:news", "hello"] } } }
---*/
const { Redis } = require("ioredis");

exports.handler = async () => {
  const redis = new Redis(process.env.REDIS, { keyPrefix: "ioredis:" });
  const subscriber = new Redis(process.env.REDIS);
  try {
    await redis.del("n", "m");
    redis.defineCommand("join", { numberOfKeys: 0, lua: "return ARGV[1] .. ARGV[2]" });
    const pipeline = (await redis.pipeline().incr("n").incr("n").get("n").exec()).map(([, value]) => value);
    const multi = (await redis.multi().set("m", 1).incrby("m", 2).exec()).map(([, value]) => value);
    await subscriber.subscribe("ioredis:news");
    const message = new Promise((resolve) => subscriber.once("message", (...args) => resolve(args)));
    await redis.publish("news", "hello");
    return { pipeline, multi, script: await redis.join("A", "B"), message: await message };
  } finally {
    redis.disconnect();
    subscriber.disconnect();
  }
};
