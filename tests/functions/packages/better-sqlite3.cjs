/*---
{ "package": "better-sqlite3", "version": "12.11.1", "tree": "better-sqlite3", "refused": "sql.js", "exercises": "native addon" }
---*/
const Database = require("better-sqlite3");

exports.handler = () => new Database(":memory:").prepare("SELECT 1 AS n").get();
