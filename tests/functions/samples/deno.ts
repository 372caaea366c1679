// A Deno server.
const BOOKS = new URLPattern({ pathname: "/books/:id" });

Deno.serve({ port: 8000, onError: () => new Response("broken", { status: 500 }) }, async (req, info) => {
  const match = BOOKS.exec(req.url);
  if (match) return Response.json({ id: match.pathname.groups.id, from: info.remoteAddr.transport });
  if (req.method === "POST") return new Response(await req.text(), { headers: { "x-echo": "1" } });
  throw new Error("nothing here");
});
