/*---
{ "package": "mongoose", "version": "9.12.1", "tree": "db", "needs": ["mongod"],
  "exercises": "schemas, validation, hooks, population, virtuals",
  "env": { "MONGODB": "{mongod}" },
  "expect": { "json": { "slug": "ada-lovelace", "author": "Ada Lovelace", "errors": ["title"], "upper": "NOTES" } } }
---*/
const mongoose = require("mongoose");

const person = new mongoose.Schema({ name: { type: String, required: true }, slug: String });
person.pre("save", function () {
  this.slug = this.name.toLowerCase().replace(" ", "-");
});
const book = new mongoose.Schema({
  title: { type: String, required: true },
  author: { type: mongoose.Schema.Types.ObjectId, ref: "Person" },
});
book.virtual("upper").get(function () {
  return this.title.toUpperCase();
});
const Person = mongoose.model("Person", person, "mongoose_people");
const Book = mongoose.model("Book", book, "mongoose_books");
const connected = mongoose.connect(process.env.MONGODB, { dbName: "packages" });

exports.handler = async () => {
  await connected;
  await Promise.all([Person.deleteMany(), Book.deleteMany()]);
  const ada = await Person.create({ name: "Ada Lovelace" });
  await Book.create({ title: "Notes", author: ada });
  const found = await Book.findOne({ title: "Notes" }).populate("author");
  const errors = await Book.create({}).catch((error) => Object.keys(error.errors));
  return { slug: ada.slug, author: found.author.name, errors, upper: found.upper };
};
