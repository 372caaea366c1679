/*---
{ "package": "pdfkit", "version": "0.20.2", "tree": "documents",
  "exercises": "a document with a standard font (a file beside it) and shapes, as a binary answer",
  "expect": { "startsWith": "%PDF-1.3" } }
---*/
const PDFDocument = require("pdfkit");
const { buffer } = require("node:stream/consumers");

exports.handler = async () => {
  const document = new PDFDocument();
  document.fontSize(20).text("Hello, wörld", 100, 100);
  document.rect(10, 10, 50, 50).fill("red");
  document.end();
  return new Response(await buffer(document), { headers: { "content-type": "application/pdf" } });
};
