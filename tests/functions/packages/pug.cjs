/*---
{ "package": "pug", "version": "3.0.4", "tree": "text",
  "exercises": "compilation to code, mixins, loops, attributes",
  "expect": { "json": { "html": "<ul><li class=\"odd\">1</li><li class=\"even\">2</li></ul><p data-x=\"a&amp;b\">hi</p>" } } }
---*/
const pug = require("pug");

const page = pug.compile(`
mixin item(n)
  li(class=n % 2 ? 'odd' : 'even')= n
ul
  each n in ns
    +item(n)
p(data-x=x) hi
`);

exports.handler = async () => ({ html: page({ ns: [1, 2], x: "a&b" }) });
