/*---
{ "package": "mongodb", "version": "7.9.0", "tree": "db", "needs": ["mongod"],
  "exercises": "a unique index, updates, an aggregation, a transaction, a change stream",
  "env": { "MONGODB": "{mongod}" },
  "expect": { "json": { "n": 7, "code": 11000, "sums": [{ "_id": "a", "n": 7 }], "aborted": 1, "change": "insert" } } }
---*/
import { MongoClient } from "mongodb";

const client = new MongoClient(process.env.MONGODB);

export default async () => {
  const people = client.db("packages").collection("driver");
  await people.drop().catch(() => {});
  await people.createIndex({ key: 1 }, { unique: true });
  await people.insertOne({ key: "a", n: 6 });
  const code = await people.insertOne({ key: "a" }).catch((error) => error.code);
  const updated = await people.findOneAndUpdate({ key: "a" }, { $inc: { n: 1 } }, { returnDocument: "after" });
  const sums = await people.aggregate([{ $group: { _id: "$key", n: { $sum: "$n" } } }]).toArray();
  await client.withSession((session) =>
    session.withTransaction(async () => {
      await people.insertOne({ key: "b" }, { session });
      await session.abortTransaction();
    }));
  const aborted = await people.countDocuments();
  const changes = people.watch();
  const next = changes.next();
  await people.insertOne({ key: "c" });
  const change = (await next).operationType;
  await changes.close();
  return { n: updated.n, code, sums, aborted, change };
};
