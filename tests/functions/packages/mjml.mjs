/*---
{ "package": "mjml", "version": "5.4.1", "tree": "mjml",
  "exercises": "a mail with columns, validation",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "isThere": true, "errors": [], "unknown": "mj-none" } } }
---*/
import mjml from "mjml";

export default async () => {
  const { html, errors } = await mjml("<mjml><mj-body><mj-section><mj-column><mj-text>Hi</mj-text></mj-column></mj-section></mj-body></mjml>");
  const { errors: [unknown] } = await mjml("<mjml><mj-body><mj-none /></mj-body></mjml>");
  return { isThere: html.includes(">Hi<") && html.startsWith("<!doctype html>"), errors, unknown: unknown.tagName };
};
