/*---
{ "package": "mysql2", "version": "3.24.6", "tree": "db", "needs": ["mariadb"],
  "exercises": "a pool, prepared statements, types, error codes, on MariaDB",
  "env": { "MARIADB": "{mariadb}" },
  "expect": { "json": { "rows": [{ "id": 1, "name": "Ada ü" }], "affected": 1, "code": "ER_DUP_ENTRY" } } }
---*/
const mysql = require("mysql2/promise");

exports.handler = async () => {
  const connection = await mysql.createConnection(process.env.MARIADB);
  try {
    await connection.query("CREATE TEMPORARY TABLE t (id INT PRIMARY KEY, name VARCHAR(20) CHARSET utf8mb4)");
    const [{ affectedRows }] = await connection.execute("INSERT INTO t VALUES (?, ?)", [1, "Ada ü"]);
    const code = await connection.execute("INSERT INTO t VALUES (?, ?)", [1, "x"]).catch((error) => error.code);
    const [rows] = await connection.execute("SELECT * FROM t WHERE id = ?", [1]);
    return { rows, affected: affectedRows, code };
  } finally {
    await connection.end();
  }
};
