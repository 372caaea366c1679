/*---
{ "package": "ajv", "version": "8.20.0", "tree": "data",
  "exercises": "a schema compiled to code (new Function), JSON pointers in errors",
  "expect": { "json": { "good": true, "errors": [["/tags/1", "must be string"], ["", "must have required property 'id'"]] } } }
---*/
import Ajv from "ajv";

const validate = new Ajv({ allErrors: true }).compile({
  type: "object",
  required: ["id"],
  properties: { id: { type: "integer" }, tags: { type: "array", items: { type: "string" } } },
});

export default () => {
  const good = validate({ id: 1, tags: ["a"] });
  validate({ tags: ["a", 2] });
  const errors = validate.errors.map((e) => [e.instancePath, e.message]).sort().reverse();
  return { good, errors };
};
