/*---
{ "package": "pino", "version": "10.4.0", "tree": "data",
  "exercises": "child loggers, redaction, error serialiser, output into the function's log",
  "expect": { "json": { "child": "ada", "password": "[Redacted]", "type": "TypeError" }, "log": "to stdout" } }
---*/
const pino = require("pino");

module.exports = async () => {
  const lines = [];
  const logger = pino({ redact: ["password"] }, { write: (line) => lines.push(JSON.parse(line)) });
  logger.child({ user: "ada" }).info({ password: "secret" }, "in");
  logger.error(new TypeError("bad"));
  pino().info("to stdout");
  return { child: lines[0].user, password: lines[0].password, type: lines[1].err.type };
};
