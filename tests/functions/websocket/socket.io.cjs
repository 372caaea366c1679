// socket.io over its WebSocket transport alone.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.join("room");
  socket.on("sum", (numbers, reply) => reply(numbers.reduce((a, b) => a + b, 0)));
  socket.on("bytes", (bytes) => io.to("room").emit("bytes back", Buffer.from(bytes).reverse()));
  socket.on("disconnect", (reason) => console.log(`disconnected: ${reason}`));
});
http.listen(3000);
