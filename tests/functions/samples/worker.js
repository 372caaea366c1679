// A Workers script.
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (url.pathname === "/digest") {
      const digest = await crypto.subtle.digest("SHA-256", await request.arrayBuffer());
      const hex = [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
      return new Response(hex, { headers: { "x-algorithm": "SHA-256" } });
    }
    if (url.pathname === "/stream") {
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      const encoder = new TextEncoder();
      ctx.waitUntil((async () => {
        for (const word of ["one ", "two ", "three"]) await writer.write(encoder.encode(word));
        await writer.close();
      })());
      return new Response(readable, { headers: { "content-type": "text/plain" } });
    }
    return Response.json({ method: request.method, greeting: env.GREETING, agent: navigator.userAgent.length > 0 });
  },
};
