/*---
{ "package": "cheerio", "version": "1.2.0", "tree": "text",
  "exercises": "selectors, changes, serialisation",
  "expect": { "json": { "links": ["/a", "/b"], "html": "<ul><li class=\"first\">x</li><li>new</li></ul>", "xml": "2" } } }
---*/
import * as cheerio from "cheerio";

export default () => {
  const $ = cheerio.load("<ul><li>x</li></ul><a href='/a'>a</a><a href='/b'>b</a>");
  $("li:first-child").addClass("first").after("<li>new</li>");
  const xml = cheerio.load("<r><n id='1'/><n id='2'/></r>", { xml: true });
  return {
    links: $("a").map((_, a) => $(a).attr("href")).get(),
    html: $.html("ul"),
    xml: xml("n").last().attr("id"),
  };
};
