/*---
{ "package": "postgres", "version": "3.4.9", "tree": "orm", "needs": ["postgres"],
  "exercises": "tagged queries, a cursor, a transaction, error codes, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "row": { "n": 1, "t": "x", "list": [1, 2] }, "pieces": [[1, 2], [3, 4], [5]], "error": ["PostgresError", "42P01"], "sum": 3 } } }
---*/
import postgres from "postgres";

export default async () => {
  const sql = postgres(process.env.POSTGRES, { max: 1 });
  const [row] = await sql`select 1 as n, ${"x"}::text as t, array[1, 2] as list`;
  const pieces = [];
  await sql`select generate_series(1, 5) as i`.cursor(2, (rows) => void pieces.push(rows.map(({ i }) => i)));
  const error = await sql`select * from none`.catch(({ name, code }) => [name, code]);
  const [{ sum }] = await sql.begin(async (sql) => {
    await sql`create temp table numbers (i int) on commit drop`;
    await sql`insert into numbers ${sql([{ i: 1 }, { i: 2 }])}`;
    return sql`select sum(i)::int from numbers`;
  });
  await sql.end();
  return { row, pieces, error, sum };
};
