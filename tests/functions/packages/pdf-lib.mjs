/*---
{ "package": "pdf-lib", "version": "1.17.1", "tree": "text",
  "exercises": "writing a document with a standard font, reading it back",
  "expect": { "json": { "magic": "%PDF-", "pages": 2, "title": "Notes", "size": [200, 100], "width": true } } }
---*/
import { PDFDocument, StandardFonts, rgb } from "pdf-lib";

export default async () => {
  const made = await PDFDocument.create();
  made.setTitle("Notes");
  const font = await made.embedFont(StandardFonts.Helvetica);
  made.addPage([200, 100]).drawText("Hello", { x: 10, y: 50, font, color: rgb(1, 0, 0) });
  made.addPage();
  const bytes = await made.save();
  const read = await PDFDocument.load(bytes);
  const { width, height } = read.getPage(0).getSize();
  return {
    magic: Buffer.from(bytes.subarray(0, 5)).toString(),
    pages: read.getPageCount(),
    title: read.getTitle(),
    size: [width, height],
    width: Math.abs(font.widthOfTextAtSize("Hello", 10) - 22.78) < 0.01,
  };
};
