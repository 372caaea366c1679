/*---
{ "package": "socket.io", "version": "4.8.4", "tree": "web",
  "exercises": "a listening server: the handshake of its long-polling transport",
  "request": { "path": "/socket.io/?EIO=4&transport=polling" },
  "expect": { "status": 200, "headers": { "content-type": "text/plain; charset=UTF-8" }, "startsWith": "0{\"sid\":\"" } }
---*/
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
new Server(http).on("connection", (socket) => socket.emit("hello"));
http.listen(3000);
