/*---
{ "package": "yaml", "version": "2.9.1", "tree": "more",
  "exercises": "anchors, comments kept, the place of an error",
  "expect": { "json": { "merged": { "x": { "a": 1 }, "y": { "a": 1 } }, "text": "# kept\na: 1\nb:\n  - 2\n", "code": "BAD_INDENT", "line": 1 } } }
---*/
import { parse, parseDocument } from "yaml";

export default () => {
  const document = parseDocument("# kept\na: 1\n");
  document.set("b", [2]);
  const { errors: [{ code, linePos }] } = parseDocument("a: [1");
  return { merged: parse("x: &x { a: 1 }\ny: *x"), text: String(document), code, line: linePos[0].line };
};
