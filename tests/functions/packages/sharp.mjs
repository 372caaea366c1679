/*---
{ "package": "sharp", "version": "0.35.5", "tree": "sharp", "refused": "wasm-vips", "exercises": "native addon" }
---*/
import sharp from "sharp";

export default () => sharp({ create: { width: 1, height: 1, channels: 3, background: "red" } }).png().toBuffer();
