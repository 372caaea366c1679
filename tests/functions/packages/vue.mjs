/*---
{ "package": "vue", "version": "3.5.45", "tree": "render",
  "exercises": "its renderer for servers: setup, a template compiled at run time",
  "expect": { "json": ["<p class=\"x\">2</p>", "<!--[--><li>&lt;Ada&gt;</li><!--]-->"] } }
---*/
import { createSSRApp, h, ref } from "vue";
import { renderToString } from "vue/server-renderer";

export default async () => {
  const setup = createSSRApp({
    setup() {
      const n = ref(2);
      return () => h("p", { class: "x" }, n.value);
    },
  });
  const template = createSSRApp({ data: () => ({ names: ["<Ada>"] }), template: "<li v-for='x in names'>{{ x }}</li>" });
  return [await renderToString(setup), await renderToString(template)];
};
