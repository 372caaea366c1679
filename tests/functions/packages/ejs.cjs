/*---
{ "package": "ejs", "version": "7.0.2", "tree": "text",
  "exercises": "compilation to code, escaping, includes from files, async",
  "expect": { "json": { "text": "<p>1 &lt; 2</p>", "included": "[ada]", "async": "7" } } }
---*/
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const ejs = require("ejs");

exports.handler = async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "ejs-"));
  fs.writeFileSync(path.join(dir, "name.ejs"), "[<%= name %>]");
  fs.writeFileSync(path.join(dir, "page.ejs"), "<%- include('name', { name }) %>");
  return {
    text: ejs.render("<p><%= text %></p>", { text: "1 < 2" }),
    included: await ejs.renderFile(path.join(dir, "page.ejs"), { name: "ada" }),
    async: await ejs.render("<%= await n %>", { n: Promise.resolve(7) }, { async: true }),
  };
};
