/*---
{ "package": "pdfjs-dist", "version": "5.6.205", "tree": "documents",
  "also": { "pdf-lib": "1.17.1" },
  "exercises": "the text of a document, by its worker (a file beside it)",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "pages": 1, "text": "find me" } } }
---*/
import { PDFDocument } from "pdf-lib";
import { getDocument } from "pdfjs-dist/legacy/build/pdf.mjs";

export default async () => {
  const written = await PDFDocument.create();
  written.addPage().drawText("find me");
  const pdf = await getDocument({ data: await written.save() }).promise;
  const { items } = await (await pdf.getPage(1)).getTextContent();
  return { pages: pdf.numPages, text: items.map(({ str }) => str).join("") };
};
