// A WebSocket as Deno writes it. What the tests ask of each form is the same: see `websocket.rs`.
Deno.serve((request) => {
  const { pathname } = new URL(request.url);
  if (request.headers.get("upgrade") !== "websocket") return new Response(`plain ${pathname}`);
  if (pathname === "/refuse") return new Response("not here", { status: 403 });
  const protocol = request.headers.has("sec-websocket-protocol") ? "chat" : undefined;
  const { socket, response } = Deno.upgradeWebSocket(request, { protocol });
  socket.onopen = () => socket.send(`open ${pathname}`);
  socket.onmessage = ({ data }) => {
    if (data === "close") return socket.close(4002, "as you wish");
    if (data === "throw") throw new Error("thrown on purpose");
    socket.send(data);
  };
  socket.onclose = ({ code, reason }) => console.log(`closed ${code} ${reason}`);
  return response;
});
