/*---
{ "package": "qrcode", "version": "1.5.4", "tree": "text",
  "exercises": "SVG, PNG through zlib, the terminal",
  "expect": { "json": { "svg": true, "png": "89504e470d0a1a0a", "modules": 21 } } }
---*/
const QRCode = require("qrcode");

exports.handler = async () => ({
  svg: (await QRCode.toString("hello", { type: "svg" })).startsWith("<svg"),
  png: (await QRCode.toBuffer("hello")).subarray(0, 8).toString("hex"),
  modules: QRCode.create("hello", {}).modules.size,
});
