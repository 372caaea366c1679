/*---
{ "package": "lodash", "version": "4.18.1", "tree": "data",
  "exercises": "groupBy, merge, template, chains",
  "request": { "method": "POST", "json": { "people": [{ "n": "Ada", "y": 1815 }, { "n": "Alan", "y": 1912 }, { "n": "Grace", "y": 1906 }] } },
  "expect": { "json": { "centuries": { "18": ["Ada"], "19": ["Alan", "Grace"] }, "merged": { "a": { "b": 1, "c": [1, 5] } }, "text": "<b>x &amp; y</b>", "chain": [9, 1] } } }
---*/
import _ from "lodash";

export default ({ body }) => ({
  centuries: _.mapValues(_.groupBy(body.people, (p) => Math.floor(p.y / 100)), (all) => _.map(all, "n")),
  merged: _.merge({ a: { b: 1, c: [1, 2] } }, { a: { c: [undefined, 5] } }),
  text: _.template("<b><%- text %></b>")({ text: "x & y" }),
  chain: _([1, 2, 3]).filter((n) => n % 2).map((n) => n * n).reverse().value(),
});
