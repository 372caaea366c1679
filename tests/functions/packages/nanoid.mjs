/*---
{ "package": "nanoid", "version": "5.1.16", "tree": "data",
  "exercises": "random ids, alphabets (ESM only)",
  "expect": { "json": { "length": 21, "alphabet": true, "distinct": 1000 } } }
---*/
import { customAlphabet, nanoid } from "nanoid";

const digits = customAlphabet("0123456789", 12);

export default () => ({
  length: nanoid().length,
  alphabet: /^\d{12}$/.test(digits()),
  distinct: new Set(Array.from({ length: 1000 }, () => nanoid())).size,
});
