// A WebSocket as servers for Node write it: the `ws` package on the 'upgrade' event.
const http = require("node:http");
const { WebSocketServer } = require("ws");

const server = http.createServer((req, res) => res.end(`plain ${req.url}`));
const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "chat" });

server.on("upgrade", (req, socket, head) => {
  if (req.url === "/refuse") {
    socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\nConnection: close\r\n\r\nnot here");
    return;
  }
  sockets.handleUpgrade(req, socket, head, (ws) => {
    ws.send(`open ${req.url}`);
    ws.on("message", (data, isBinary) => {
      const text = isBinary ? "" : data.toString();
      if (text === "close") return ws.close(4002, "as you wish");
      if (text === "throw") throw new Error("thrown on purpose");
      if (text === "flood") return flood(ws);
      if (text === "ping") return ws.ping("are you there", () => {});
      ws.send(isBinary ? data : text);
    });
    ws.on("pong", (data) => ws.send(`pong ${data}`));
    ws.on("close", (code, reason) => console.log(`closed ${code} ${reason}`));
  });
});
server.listen(3000);

/** 64 MB, each piece when the one before it has left. */
function flood(ws, left = 1024) {
  if (left === 0) return ws.close(1000, "all");
  ws.send(Buffer.alloc(64 * 1024, 7), (error) => error ? undefined : flood(ws, left - 1));
}
