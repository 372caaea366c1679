/*---
{ "package": "debug", "version": "4.4.3", "tree": "data",
  "exercises": "namespaces from the environment, output into the function's log",
  "env": { "DEBUG": "app:*,-app:noise" },
  "expect": { "json": { "enabled": [true, false, false] }, "log": "app:db connected to 7" } }
---*/
const debug = require("debug");

module.exports = async () => {
  debug("app:db")("connected to %d", 7);
  return { enabled: ["app:db", "app:noise", "other"].map((name) => debug(name).enabled) };
};
