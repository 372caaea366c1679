/*---
{ "package": "valibot", "version": "1.5.0", "tree": "more",
  "exercises": "pipes, unions, issues with paths",
  "expect": { "json": { "parsed": { "email": "a@b.co", "age": null }, "paths": ["email", "age"] } } }
---*/
import * as v from "valibot";

const Person = v.object({ email: v.pipe(v.string(), v.trim(), v.email()), age: v.union([v.number(), v.null()]) });

export default () => {
  const { issues } = v.safeParse(Person, { email: "x", age: "y" });
  return { parsed: v.parse(Person, { email: " a@b.co ", age: null }), paths: issues.map((issue) => v.getDotPath(issue)) };
};
