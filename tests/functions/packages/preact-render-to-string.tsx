/*---
{ "package": "preact-render-to-string", "version": "6.5.11", "tree": "render",
  "also": { "preact": "10.24.3" },
  "exercises": "its JSX, hooks, escaping",
  "expect": { "text": "<p class=\"x\">3 &lt; 4</p>" } }
---*/
/** @jsxImportSource preact */
import { renderToString } from "preact-render-to-string";
import { useState } from "preact/hooks";

const Counter = () => {
  const [n] = useState(3);
  return <p class="x">{n} {"<"} 4</p>;
};

export default (): string => renderToString(<Counter />);
