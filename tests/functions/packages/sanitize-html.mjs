/*---
{ "package": "sanitize-html", "version": "2.17.5", "tree": "render",
  "exercises": "scripts and handlers removed, attributes that are allowed",
  "expect": { "text": "<p>ok <a>a</a> <a href=\"https://h.example\">b</a></p>" } }
---*/
import sanitize from "sanitize-html";

export default () =>
  sanitize("<p onclick=x>ok<script>1</script> <a href='javascript:1'>a</a> <a href='https://h.example'>b</a></p>");
