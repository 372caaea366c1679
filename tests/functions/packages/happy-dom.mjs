/*---
{ "package": "happy-dom", "version": "21.0.4", "tree": "render",
  "exercises": "a window: DOM, events, forms, timers that are waited for",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "type": "click", "data": [["a", "1"]], "host": "h.example" } } }
---*/
import { Window } from "happy-dom";

export default async () => {
  const window = new Window({ url: "http://h.example/" });
  const { document } = window;
  document.body.innerHTML = "<form><input name=a value=1></form><p class=x>text</p>";
  const clicked = new Promise((resolve) => document.querySelector(".x").addEventListener("click", resolve));
  window.setTimeout(() => document.querySelector(".x").click(), 5);
  await window.happyDOM.waitUntilComplete();
  const { type } = await clicked;
  const data = [...new window.FormData(document.querySelector("form"))];
  await window.happyDOM.close();
  return { type, data, host: window.location.host };
};
