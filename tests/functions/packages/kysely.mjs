/*---
{ "package": "kysely", "version": "0.28.19", "tree": "orm", "needs": ["postgres"],
  "also": { "pg": "8.23.1" },
  "exercises": "schema, inserts with returning, joins, a transaction, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "ids": [{ "id": 1 }, { "id": 2 }], "found": [{ "name": "Alan" }], "undone": "rolled back", "left": 2, "error": "42P01" } } }
---*/
import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";

export default async () => {
  const pool = new pg.Pool({ connectionString: process.env.POSTGRES, max: 1 });
  const db = new Kysely({ dialect: new PostgresDialect({ pool }) });
  await db.schema.dropTable("kysely_people").ifExists().execute();
  await db.schema
    .createTable("kysely_people")
    .addColumn("id", "serial", (column) => column.primaryKey())
    .addColumn("name", "text")
    .execute();
  const people = [{ name: "Ada" }, { name: "Alan" }];
  const ids = await db.insertInto("kysely_people").values(people).returning("id").execute();
  const found = await db.selectFrom("kysely_people").select("name").where("name", "like", "Al%").execute();
  const undone = await db.transaction().execute(async (inside) => {
    await inside.deleteFrom("kysely_people").execute();
    throw new Error("rolled back");
  }).catch((error) => error.message);
  const { rows } = await sql`select count(*)::int as left from kysely_people`.execute(db);
  const error = await db.selectFrom("none").selectAll().execute().catch(({ code }) => code);
  await db.destroy();
  return { ids, found, undone, left: rows[0].left, error };
};
