/*---
{ "package": "@react-pdf/renderer", "version": "4.9.0", "tree": "reactpdf",
  "also": { "react": "19.3.1" },
  "exercises": "fetch style: a document of JSX, laid out (WebAssembly inside)",
  "limits": { "memoryMb": 512 },
  "expect": { "startsWith": "%PDF-1.3" } }
---*/
import { Document, Page, renderToBuffer, Text, View } from "@react-pdf/renderer";

const document = <Document><Page><View style={{ flexDirection: "row" }}><Text>hello</Text></View></Page></Document>;

export default {
  async fetch(): Promise<Response> {
    return new Response(await renderToBuffer(document), { headers: { "content-type": "application/pdf" } });
  },
};
