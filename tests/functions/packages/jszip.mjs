/*---
{ "package": "jszip", "version": "3.10.2", "tree": "text",
  "exercises": "an archive out and back as the function's binary answer",
  "expect": { "headers": { "content-type": "application/zip", "x-names": "a.txt,d/,d/b.txt", "x-text": "hello" }, "startsWith": "PK" } }
---*/
import JSZip from "jszip";

export default async () => {
  const zip = new JSZip();
  zip.file("a.txt", "hello");
  zip.folder("d").file("b.txt", new Uint8Array([1, 2, 3]));
  const bytes = await zip.generateAsync({ type: "nodebuffer", compression: "DEFLATE" });
  const back = await JSZip.loadAsync(bytes);
  return {
    statusCode: 200,
    headers: {
      "content-type": "application/zip",
      "x-names": Object.keys(back.files).sort().join(),
      "x-text": await back.file("a.txt").async("string"),
    },
    body: bytes.toString("base64"),
    isBase64Encoded: true,
  };
};
