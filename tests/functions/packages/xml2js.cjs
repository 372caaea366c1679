/*---
{ "package": "xml2js", "version": "0.6.2", "tree": "text",
  "exercises": "parsing with attributes, building, errors",
  "expect": { "json": { "parsed": { "r": { "$": { "v": "1" }, "n": ["a", "b"] } }, "built": "<r v=\"1\"><n>a</n></r>", "bad": true } } }
---*/
const xml2js = require("xml2js");

exports.handler = async () => ({
  parsed: await xml2js.parseStringPromise("<r v='1'><n>a</n><n>b</n></r>"),
  built: new xml2js.Builder({ headless: true, renderOpts: { pretty: false } }).buildObject({ r: { $: { v: 1 }, n: "a" } }),
  bad: await xml2js.parseStringPromise("<a><b></a>").then(() => false, () => true),
});
