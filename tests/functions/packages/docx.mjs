/*---
{ "package": "docx", "version": "9.15.2", "tree": "documents",
  "also": { "mammoth": "1.13.0" },
  "exercises": "a document of Word written, and read by mammoth as HTML",
  "expect": { "json": { "html": "<h1>Title</h1><p>a &amp; b</p>" } } }
---*/
import { Document, HeadingLevel, Packer, Paragraph } from "docx";
import mammoth from "mammoth";

export default async () => {
  const children = [new Paragraph({ text: "Title", heading: HeadingLevel.HEADING_1 }), new Paragraph("a & b")];
  const buffer = await Packer.toBuffer(new Document({ sections: [{ children }] }));
  const { value } = await mammoth.convertToHtml({ buffer });
  return { html: value };
};
