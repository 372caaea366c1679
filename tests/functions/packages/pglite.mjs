/*---
{ "package": "@electric-sql/pglite", "version": "0.5.17", "tree": "wasm",
  "exercises": "PostgreSQL in WebAssembly (files beside it): tables, parameters, types, a transaction",
  "limits": { "memoryMb": 1024 },
  "expect": { "json": { "rows": [{ "name": "Ada", "tags": ["x"] }], "undone": "rolled back", "error": "42P01", "left": 2 } } }
---*/
import { PGlite } from "@electric-sql/pglite";

export default async () => {
  const db = new PGlite();
  await db.exec("create table people (id serial primary key, name text, tags jsonb)");
  await db.query("insert into people (name, tags) values ($1, $2), ('Alan', null)", ["Ada", ["x"]]);
  const { rows } = await db.query("select name, tags from people where name like $1", ["Ad%"]);
  const undone = await db.transaction(async (inside) => {
    await inside.query("delete from people");
    await inside.rollback();
    return "rolled back";
  });
  const error = await db.query("select * from none").catch(({ code }) => code);
  const { rows: [{ left }] } = await db.query("select count(*)::int as left from people");
  await db.close();
  return { rows, undone, error, left };
};
