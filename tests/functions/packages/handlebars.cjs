/*---
{ "package": "handlebars", "version": "4.7.10", "tree": "text",
  "exercises": "compilation to code, partials, block helpers, escaping",
  "expect": { "json": { "html": "<li>ADA &lt;a@x&gt;</li><li>ALAN &lt;b@x&gt;</li>", "precompiled": true } } }
---*/
const Handlebars = require("handlebars");

Handlebars.registerHelper("loud", (options) => options.fn(options.data.root.shouted ?? this).toUpperCase());
Handlebars.registerPartial("person", "<li>{{upper name}} {{mail}}</li>");
Handlebars.registerHelper("upper", (text) => text.toUpperCase());
const list = Handlebars.compile("{{#each people}}{{> person}}{{/each}}");

exports.handler = async () => ({
  html: list({ people: [{ name: "Ada", mail: "<a@x>" }, { name: "Alan", mail: "<b@x>" }] }),
  precompiled: Handlebars.precompile("{{x}}").includes("compiler"),
});
