/*---
{ "package": "mustache", "version": "4.2.0", "tree": "render",
  "exercises": "sections, partials, escaping",
  "expect": { "text": "<p>&lt;Ada&gt;</p><p>Alan</p>" } }
---*/
import Mustache from "mustache";

export default () =>
  Mustache.render("{{#people}}{{>person}}{{/people}}", { people: ["<Ada>", "Alan"] }, { person: "<p>{{.}}</p>" });
