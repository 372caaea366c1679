/*---
{ "package": "formidable", "version": "3.5.4", "tree": "serverless",
  "exercises": "a listening server that takes a form with a file",
  "request": { "method": "POST", "path": "/upload", "text": "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--X\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nmine\r\n--X--\r\n", "headers": { "content-type": "multipart/form-data; boundary=X" } },
  "expect": { "json": { "note": ["mine"], "name": "a.txt", "text": "hello" } } }
---*/
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import formidable from "formidable";

createServer(async (request, response) => {
  const [{ note }, { file: [file] }] = await formidable().parse(request);
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ note, name: file.originalFilename, text: readFileSync(file.filepath, "utf8") }));
}).listen(3000);
