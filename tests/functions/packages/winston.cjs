/*---
{ "package": "winston", "version": "3.19.0", "tree": "data",
  "exercises": "formats, levels, console output into the function's log, a stream transport",
  "expect": { "json": { "lines": ["{\"level\":\"info\",\"message\":\"hello ada\",\"user\":7}", "{\"level\":\"warn\",\"message\":\"watch out\"}"] }, "log": "watch out" } }
---*/
const { Writable } = require("node:stream");
const winston = require("winston");

exports.handler = async () => {
  const lines = [];
  const stream = new Writable({ write: (chunk, _, done) => (lines.push(chunk.toString().trim()), done()) });
  const { combine, json, splat } = winston.format;
  const logger = winston.createLogger({
    level: "info",
    format: combine(splat(), json({ deterministic: true })),
    transports: [new winston.transports.Console(), new winston.transports.Stream({ stream })],
  });
  logger.info("hello %s", "ada", { user: 7 });
  logger.debug("not this");
  logger.warn("watch out");
  await new Promise((resolve) => logger.on("finish", () => setImmediate(resolve)).end());
  return { lines };
};
