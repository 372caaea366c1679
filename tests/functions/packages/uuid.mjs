/*---
{ "package": "uuid", "version": "14.0.3", "tree": "data",
  "exercises": "v4, v5 against a known vector, v7 order, parse",
  "expect": { "json": { "v5": "2ed6657d-e927-568b-95e1-2665a8aea6a2", "valid": true, "versions": [4, 7], "ordered": true } } }
---*/
import { parse, stringify, v4, v5, v7, validate, version } from "uuid";

export default () => {
  const random = v4();
  const early = v7({ msecs: 1 });
  return {
    v5: v5("www.example.com", v5.DNS),
    valid: validate(random) && stringify(parse(random)) === random && random !== v4(),
    versions: [version(random), version(early)],
    ordered: early < v7(),
  };
};
