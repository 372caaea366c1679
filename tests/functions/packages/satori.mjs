/*---
{ "package": "satori", "version": "0.63.2", "tree": "satori",
  "also": { "@fontsource/inter": "5.3.0", "@resvg/resvg-wasm": "2.6.2" },
  "exercises": "a picture of HTML with a font, as SVG, and as PNG by resvg (WebAssembly beside it)",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "starts": "<svg width=\"100\" height=", "isRed": true, "width": 100, "height": 50 } } }
---*/
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { initWasm, Resvg } from "@resvg/resvg-wasm";
import satori from "satori";

const require = createRequire(import.meta.url);
const data = readFileSync(require.resolve("@fontsource/inter/files/inter-latin-400-normal.woff"));
await initWasm(readFileSync(require.resolve("@resvg/resvg-wasm/index_bg.wasm")));

export default async () => {
  const element = { type: "div", props: { children: "hello", style: { color: "red", fontSize: 20 } } };
  const svg = await satori(element, { width: 100, height: 50, fonts: [{ name: "Inter", data, weight: 400 }] });
  const { width, height } = new Resvg(svg).render();
  return { starts: svg.slice(0, 24), isRed: svg.includes("red"), width, height };
};
