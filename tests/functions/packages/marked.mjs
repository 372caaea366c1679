/*---
{ "package": "marked", "version": "18.2.1", "tree": "text",
  "exercises": "GitHub tables, a custom renderer, async extensions",
  "expect": { "json": { "heading": "<h1 id=\"hi-there\">Hi there</h1>", "table": true, "async": "<p>HELLO</p>" } } }
---*/
import { Marked } from "marked";

export default async () => {
  const marked = new Marked({
    renderer: {
      heading: ({ text, depth }) => `<h${depth} id="${text.toLowerCase().replace(/\W+/g, "-")}">${text}</h${depth}>`,
    },
  });
  const walking = new Marked({
    async: true,
    async walkTokens(token) {
      if (token.type === "text") token.text = await Promise.resolve(token.text.toUpperCase());
    },
  });
  return {
    heading: marked.parse("# Hi there"),
    table: marked.parse("|a|b|\n|-|-|\n|1|2|").includes("<td>2</td>"),
    async: (await walking.parse("hello")).trim(),
  };
};
