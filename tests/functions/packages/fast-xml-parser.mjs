/*---
{ "package": "fast-xml-parser", "version": "5.12.1", "tree": "text",
  "exercises": "parsing to values, building, validation with the place of the error",
  "expect": { "json": { "parsed": { "r": { "n": [1, 2], "t": "x & y" } }, "built": "<r><n>1</n></r>", "line": 2 } } }
---*/
import { XMLBuilder, XMLParser, XMLValidator } from "fast-xml-parser";

export default () => ({
  parsed: new XMLParser().parse("<r><n>1</n><n>2</n><t>x &amp; y</t></r>"),
  built: new XMLBuilder().build({ r: { n: 1 } }),
  line: XMLValidator.validate("<a>\n</b>").err.line,
});
