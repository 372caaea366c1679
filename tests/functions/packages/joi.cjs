/*---
{ "package": "joi", "version": "18.3.2", "tree": "data",
  "exercises": "objects, references, conversion, collected errors",
  "expect": { "json": { "value": { "from": 1, "to": 2, "when": "2026-01-02T00:00:00.000Z" }, "errors": ["any.required", "number.greater"] } } }
---*/
const Joi = require("joi");

const range = Joi.object({
  from: Joi.number().required(),
  to: Joi.number().greater(Joi.ref("from")),
  when: Joi.date().required(),
});

exports.handler = async () => ({
  value: await range.validateAsync({ from: "1", to: 2, when: "2026-01-02" }),
  errors: range.validate({ from: 3, to: 2 }, { abortEarly: false }).error.details.map((d) => d.type).sort(),
});
