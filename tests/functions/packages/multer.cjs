/*---
{ "package": "multer", "version": "2.5.0", "tree": "web4",
  "also": { "express": "4.22.3" },
  "exercises": "a listening app of Express that takes a form with a file, kept in /tmp",
  "request": { "method": "POST", "path": "/upload", "text": "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--X\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nmine\r\n--X--\r\n", "headers": { "content-type": "multipart/form-data; boundary=X" } },
  "expect": { "json": { "name": "a.txt", "text": "hello", "note": "mine" } } }
---*/
const { readFileSync } = require("node:fs");
const express = require("express");
const multer = require("multer");

const app = express();
app.post("/upload", multer({ dest: "/tmp/uploads" }).single("file"), ({ file, body }, response) => {
  response.json({ name: file.originalname, text: readFileSync(file.path, "utf8"), note: body.note });
});
app.listen(3000);
