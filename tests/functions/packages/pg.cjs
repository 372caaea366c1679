/*---
{ "package": "pg", "version": "8.23.1", "tree": "db", "needs": ["postgres"],
  "exercises": "a pool, parameters, types, a transaction rolled back, error codes, LISTEN",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "rows": [{ "id": 1, "doc": { "a": [1] }, "at": "2024-02-29T00:00:00.000Z" }], "after": 0, "code": "23505", "notified": "hello" } } }
---*/
const { Pool } = require("pg");

const pool = new Pool({ connectionString: process.env.POSTGRES, max: 2 });

exports.handler = async () => {
  const client = await pool.connect();
  try {
    await client.query("CREATE TEMP TABLE t (id int PRIMARY KEY, doc jsonb, at timestamptz)");
    await client.query("INSERT INTO t VALUES ($1, $2, $3)", [1, { a: [1] }, new Date("2024-02-29T00:00:00Z")]);
    const { rows } = await client.query("SELECT * FROM t");
    const code = await client.query("INSERT INTO t VALUES (1)").catch((error) => error.code);
    await client.query("BEGIN");
    await client.query("INSERT INTO t VALUES (2)");
    await client.query("ROLLBACK");
    const after = (await client.query("SELECT count(*)::int AS n FROM t WHERE id = 2")).rows[0].n;
    const notification = new Promise((resolve) => client.once("notification", (n) => resolve(n.payload)));
    await client.query("LISTEN news");
    await pool.query("NOTIFY news, 'hello'");
    return { rows, after, code, notified: await notification };
  } finally {
    client.release(true);
  }
};
