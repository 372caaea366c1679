/*---
{ "package": "csv-parse", "version": "7.0.3", "tree": "text",
  "exercises": "sync and streaming parsing, a subpath export, error codes",
  "request": { "method": "POST", "headers": { "content-type": "text/csv" }, "text": "name,year\n\"Lovelace, Ada\",1815\nTuring,1912\n" },
  "expect": { "json": { "sync": [{ "name": "Lovelace, Ada", "year": "1815" }, { "name": "Turing", "year": "1912" }], "total": 3727, "code": "CSV_RECORD_INCONSISTENT_FIELDS_LENGTH" } } }
---*/
import { Readable } from "node:stream";
import { parse } from "csv-parse";
import { parse as parseSync } from "csv-parse/sync";

export default async ({ rawBody }) => {
  let total = 0;
  for await (const row of Readable.from([rawBody]).pipe(parse({ columns: true, cast: true }))) total += row.year;
  let code;
  try {
    parseSync("a,b\n1\n");
  } catch (error) {
    code = error.code;
  }
  return { sync: parseSync(rawBody, { columns: true }), total, code };
};
