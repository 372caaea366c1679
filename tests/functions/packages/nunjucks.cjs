/*---
{ "package": "nunjucks", "version": "3.2.4", "tree": "render",
  "exercises": "compilation to code, blocks of files, filters",
  "expect": { "text": "<h1>A &amp; B</h1>" } }
---*/
const fs = require("node:fs");
const nunjucks = require("nunjucks");

fs.writeFileSync("/tmp/base.njk", "<h1>{% block title %}{% endblock %}</h1>");
const templates = nunjucks.configure("/tmp", { autoescape: true });

exports.handler = () =>
  templates.renderString("{% extends 'base.njk' %}{% block title %}{{ name | upper }}{% endblock %}", { name: "a & b" });
