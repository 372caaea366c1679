/*---
{ "package": "linkedom", "version": "0.18.15", "tree": "render",
  "exercises": "DOM, selectors, custom elements, serialisation",
  "expect": { "text": "<ul><li>1</li><li>&lt;2&gt;</li></ul><x-hi>hi</x-hi>" } }
---*/
import { parseHTML } from "linkedom";

export default () => {
  const { document, customElements, HTMLElement } = parseHTML("<ul><li>1</li></ul><x-hi></x-hi>");
  customElements.define("x-hi", class extends HTMLElement {
    connectedCallback() {
      this.textContent = "hi";
    }
  });
  document.querySelector("ul").append(Object.assign(document.createElement("li"), { textContent: "<2>" }));
  return document.toString();
};
