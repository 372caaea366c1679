/*---
{ "package": "unified", "version": "11.0.5", "tree": "render",
  "also": { "remark-gfm": "4.0.1", "remark-parse": "11.0.0", "remark-rehype": "11.1.2", "rehype-stringify": "10.0.1" },
  "exercises": "remark and rehype: GitHub's Markdown to HTML (ESM only)",
  "expect": { "text": "<ul class=\"contains-task-list\">\n<li class=\"task-list-item\"><input type=\"checkbox\" checked disabled> <del>done</del></li>\n</ul>\n<table>\n<thead>\n<tr>\n<th>a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td>1</td>\n</tr>\n</tbody>\n</table>" } }
---*/
import rehypeStringify from "rehype-stringify";
import remarkGfm from "remark-gfm";
import remarkParse from "remark-parse";
import remarkRehype from "remark-rehype";
import { unified } from "unified";

const processor = unified().use(remarkParse).use(remarkGfm).use(remarkRehype).use(rehypeStringify);

export default async () => String(await processor.process("- [x] ~~done~~\n\n|a|\n|-|\n|1|\n"));
