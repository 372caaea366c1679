/*---
{ "package": "typeorm", "version": "1.1.1", "tree": "orm", "needs": ["postgres"],
  "also": { "pg": "8.23.1", "reflect-metadata": "0.2.2" },
  "exercises": "an entity schema, synchronisation, repositories, a query builder, a transaction, on PostgreSQL",
  "env": { "POSTGRES": "{postgres}" },
  "expect": { "json": { "found": [{ "name": "Ada", "tags": ["x"] }], "undone": "rolled back", "left": 1 } } }
---*/
import "reflect-metadata";
import { DataSource, EntitySchema, Like } from "typeorm";

const Person = new EntitySchema({
  name: "TypeormPerson",
  columns: {
    id: { type: "int", primary: true, generated: true },
    name: { type: "text" },
    tags: { type: "simple-json", nullable: true },
  },
});

export default async () => {
  const source = new DataSource({ type: "postgres", url: process.env.POSTGRES, entities: [Person], synchronize: true });
  await source.initialize();
  const people = source.getRepository(Person);
  await people.clear();
  await people.save([{ name: "Ada", tags: ["x"] }, { name: "Alan" }]);
  const found = await people.find({ where: { name: Like("Ad%") }, select: { name: true, tags: true } });
  const undone = await source.transaction(async (manager) => {
    await manager.delete(Person, { name: "Ada" });
    throw new Error("rolled back");
  }).catch((error) => error.message);
  const left = await people.createQueryBuilder("p").where("p.name <> :name", { name: "Alan" }).getCount();
  await source.destroy();
  return { found, undone, left };
};
