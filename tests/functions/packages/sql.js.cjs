/*---
{ "package": "sql.js", "version": "1.16.0", "tree": "wasm",
  "exercises": "SQLite in WebAssembly (a .wasm file beside it): tables, statements, export and import",
  "expect": { "json": { "rows": [["Ada", 36]], "back": 36 } } }
---*/
const initSqlJs = require("sql.js");

exports.handler = async () => {
  const SQL = await initSqlJs();
  const db = new SQL.Database();
  db.run("CREATE TABLE t (name TEXT, age INT)");
  db.run("INSERT INTO t VALUES (?, ?)", ["Ada", 36]);
  const copy = new SQL.Database(db.export());
  return { rows: db.exec("SELECT * FROM t")[0].values, back: copy.exec("SELECT age FROM t")[0].values[0][0] };
};
