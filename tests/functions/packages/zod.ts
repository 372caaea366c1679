/*---
{ "package": "zod", "version": "4.6.7", "tree": "data",
  "exercises": "objects, transforms, unions, issues with paths",
  "request": { "method": "POST", "json": { "email": "ada@example.org", "age": "36", "pet": { "kind": "cat", "lives": 9 } } },
  "expect": { "json": { "value": { "email": "ada@example.org", "age": 36, "pet": { "kind": "cat", "lives": 9 } }, "paths": ["email", "age", "pet.kind"] } } }
---*/
import { z } from "zod";

const Person = z.object({
  email: z.email(),
  age: z.coerce.number().int().positive(),
  pet: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("cat"), lives: z.number() }),
    z.object({ kind: z.literal("dog"), good: z.boolean() }),
  ]),
});
type Person = z.infer<typeof Person>;

export default (event: { body: unknown }) => {
  const value: Person = Person.parse(event.body);
  const bad = Person.safeParse({ email: "no", age: -1, pet: { kind: "fish" } });
  return { value, paths: bad.error?.issues.map((issue) => issue.path.join(".")) };
};
