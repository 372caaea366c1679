/*---
{ "package": "ramda", "version": "0.32.0", "tree": "data",
  "exercises": "currying, lenses, pipe",
  "expect": { "json": { "total": 60, "lens": { "a": { "b": 3 } }, "by": { "even": [2, 4], "odd": [1, 3] } } } }
---*/
import * as R from "ramda";

export default () => ({
  total: R.pipe(R.map(R.multiply(R.__, 10)), R.sum)([1, 2, 3]),
  lens: R.over(R.lensPath(["a", "b"]), R.inc, { a: { b: 2 } }),
  by: R.groupBy((n) => (n % 2 ? "odd" : "even"), [1, 2, 3, 4]),
});
