// A WebSocket as Workers write it.
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (request.headers.get("Upgrade") !== "websocket") return new Response(`plain ${pathname}`);
    if (pathname === "/refuse") return new Response("not here", { status: 403 });
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.send(`open ${pathname}`);
    server.addEventListener("message", ({ data }) => {
      if (data === "close") return server.close(4002, "as you wish");
      if (data === "throw") throw new Error("thrown on purpose");
      server.send(data);
    });
    server.addEventListener("close", ({ code, reason }) => console.log(`closed ${code} ${reason}`));
    const headers = request.headers.has("sec-websocket-protocol") ? { "Sec-WebSocket-Protocol": "chat" } : {};
    return new Response(null, { status: 101, webSocket: client, headers });
  },
};
