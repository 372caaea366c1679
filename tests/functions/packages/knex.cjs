/*---
{ "package": "knex", "version": "3.3.0", "tree": "db", "needs": ["postgres"], "also": { "pg": "8.23.1" },
  "exercises": "schema, inserts with returning, joins and aggregates, a transaction, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "ids": [1, 2], "totals": [{ "name": "Ada", "total": "7" }], "sql": "select * from `t` where `a` = 1" } } }
---*/
const knex = require("knex");

const db = knex({ client: "pg", connection: process.env.POSTGRES, pool: { min: 0, max: 1 } });

exports.handler = async () => {
  const run = await db.transaction(async (trx) => {
    await trx.schema.createTable("knex_people", (t) => (t.increments("id"), t.string("name")));
    await trx.schema.createTable("knex_sales", (t) => (t.integer("person"), t.integer("amount")));
    const ids = await trx("knex_people").insert([{ name: "Ada" }, { name: "Alan" }]).returning("id");
    await trx("knex_sales").insert([{ person: 1, amount: 3 }, { person: 1, amount: 4 }]);
    const totals = await trx("knex_people").join("knex_sales", "knex_people.id", "person")
      .groupBy("name").select("name").sum({ total: "amount" });
    await trx.rollback({ ids: ids.map((row) => row.id), totals });
  }).catch((rolledBack) => rolledBack);
  return { ...run, sql: knex({ client: "mysql2" })("t").where({ a: 1 }).toString() };
};
