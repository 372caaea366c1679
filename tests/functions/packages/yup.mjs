/*---
{ "package": "yup", "version": "1.7.1", "tree": "data",
  "exercises": "casts, async tests, messages",
  "expect": { "json": { "cast": { "n": 7, "name": "ada" }, "errors": ["n must be a positive number", "taken"] } } }
---*/
import * as yup from "yup";

const schema = yup.object({
  n: yup.number().positive(),
  name: yup.string().trim().lowercase().test("free", "taken", async (name) => name !== "root"),
});

export default async () => ({
  cast: await schema.validate({ n: "7", name: " ADA " }),
  errors: await schema.validate({ n: -1, name: "root" }, { abortEarly: false })
    .then(() => [], (error) => error.errors.sort()),
});
