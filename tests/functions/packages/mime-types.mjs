/*---
{ "package": "mime-types", "version": "3.0.2", "tree": "data",
  "exercises": "types by extension and back, charsets, its tables",
  "request": { "method": "POST", "json": { "file": "a/report.html" } },
  "expect": { "json": { "charset": "UTF-8", "type": "text/html", "content": "application/json; charset=utf-8", "extension": "md", "names": ["html", "htm", "shtml"], "known": true, "replaced": "text/x-own" } } }
---*/
import mime, { types } from "mime-types";

export default ({ body }) => {
  const charset = mime.charset("application/json");
  const type = mime.lookup(body.file);
  const known = Object.keys(types).length > 1000 && Object.keys(mime).includes("types") && mime.types === types;
  const names = mime.extensions["text/html"];
  const all = mime.types;
  mime.types = { own: "text/x-own" };
  const replaced = mime.lookup("an.own");
  mime.types = all;
  return { charset, type, content: mime.contentType("data.json"), extension: mime.extension("text/markdown; a=b"), names, known, replaced };
};
