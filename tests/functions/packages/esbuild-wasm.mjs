/*---
{ "package": "esbuild-wasm", "version": "0.28.2", "tree": "tools",
  "exercises": "its WebAssembly module instantiated in the isolate, TypeScript transformed",
  "limits": { "memoryMb": 512, "timeoutMs": 30000 },
  "expect": { "json": { "code": "export const n=1;" } } }
---*/
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import * as esbuild from "esbuild-wasm/esm/browser.js";

const require = createRequire(import.meta.url);
let ready;

export default async () => {
  ready ??= esbuild.initialize({
    wasmModule: new WebAssembly.Module(readFileSync(require.resolve("esbuild-wasm/esbuild.wasm"))),
    worker: false,
  });
  await ready;
  const { code } = await esbuild.transform("export const n: number = 1;", { loader: "ts", minify: true });
  return { code: code.trim() };
};
