/*---
{ "package": "drizzle-orm", "version": "0.45.4", "tree": "db", "needs": ["postgres"], "also": { "pg": "8.23.1" },
  "exercises": "a typed schema, inserts with returning, filters, a transaction, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "inserted": [{ "id": 1, "name": "Ada", "tags": ["x"] }], "found": ["Alan"], "left": 2 } } }
---*/
import { drizzle } from "drizzle-orm/node-postgres";
import { count, like, sql } from "drizzle-orm";
import { jsonb, pgTable, serial, text } from "drizzle-orm/pg-core";
import pg from "pg";

const people = pgTable("drizzle_people", {
  id: serial("id").primaryKey(),
  name: text("name").notNull(),
  tags: jsonb("tags").$type<string[]>(),
});

export default async () => {
  const client = new pg.Client(process.env.POSTGRES);
  await client.connect();
  try {
    const db = drizzle(client);
    await db.execute(sql`CREATE TEMP TABLE drizzle_people (id serial PRIMARY KEY, name text NOT NULL, tags jsonb)`);
    const inserted = await db.insert(people).values({ name: "Ada", tags: ["x"] }).returning();
    await db.insert(people).values({ name: "Alan" });
    await db.transaction(async (tx) => {
      await tx.delete(people);
      tx.rollback();
    }).catch(() => {});
    const found = await db.select({ name: people.name }).from(people).where(like(people.name, "Al%"));
    const [{ n }] = await db.select({ n: count() }).from(people);
    return { inserted, found: found.map((row) => row.name), left: n };
  } finally {
    await client.end();
  }
};
