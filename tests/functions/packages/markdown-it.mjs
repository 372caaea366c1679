/*---
{ "package": "markdown-it", "version": "15.0.3", "tree": "render",
  "exercises": "tables, links that are found, a rule of its own",
  "expect": { "text": "<h1>x</h1>\n<p><b>a</b> <a href=\"http://h.example\">http://h.example</a></p>\n<table>\n<thead>\n<tr>\n<th>a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td>1</td>\n</tr>\n</tbody>\n</table>\n" } }
---*/
import MarkdownIt from "markdown-it";

const markdown = new MarkdownIt({ linkify: true });
markdown.renderer.rules.strong_open = () => "<b>";
markdown.renderer.rules.strong_close = () => "</b>";

export default () => markdown.render("# x\n\n**a** http://h.example\n\n| a |\n|---|\n| 1 |\n");
