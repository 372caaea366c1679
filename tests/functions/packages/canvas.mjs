/*---
{ "package": "canvas", "version": "3.2.3", "tree": "canvas", "refused": "canvaskit-wasm", "exercises": "native addon" }
---*/
import { createCanvas } from "canvas";

export default () => createCanvas(1, 1).toBuffer();
