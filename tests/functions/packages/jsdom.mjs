/*---
{ "package": "jsdom", "version": "29.1.1", "tree": "text",
  "exercises": "DOM, events, selectors, computed style from its own default stylesheet (a file beside it)",
  "limits": { "memoryMb": 512, "timeoutMs": 20000 },
  "expect": { "json": { "text": "changed", "clicked": 1, "display": "block", "count": 2 } } }
---*/
import { JSDOM } from "jsdom";

export default () => {
  const { window } = new JSDOM("<div id=a><p>1</p><p>2</p></div><button>go</button>");
  const { document } = window;
  let clicked = 0;
  document.querySelector("button").addEventListener("click", () => clicked++);
  document.querySelector("button").click();
  document.querySelector("#a > p:last-child").textContent = "changed";
  return {
    text: document.querySelectorAll("p")[1].innerHTML,
    clicked,
    display: window.getComputedStyle(document.getElementById("a")).display,
    count: document.getElementById("a").children.length,
  };
};
