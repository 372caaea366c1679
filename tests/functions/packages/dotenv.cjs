/*---
{ "package": "dotenv", "version": "18.0.10", "tree": "data",
  "exercises": "parsing, a file in /tmp, process.env",
  "env": { "KEPT": "from the platform" },
  "expect": { "json": { "parsed": { "A": "1", "B": "two words", "C": "x\ny" }, "env": ["from the platform", "new"] } } }
---*/
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const dotenv = require("dotenv");

exports.handler = async () => {
  const file = path.join(os.tmpdir(), ".env");
  fs.writeFileSync(file, "KEPT=overwritten\nFRESH=new\n");
  dotenv.config({ path: file, quiet: true });
  return {
    parsed: dotenv.parse("# a comment\nA=1\nB='two words'\nC=\"x\\ny\"\n"),
    env: [process.env.KEPT, process.env.FRESH],
  };
};
