interface Context {
  waitUntil(promise: Promise<unknown>): void;
}

async function count(path: string): Promise<void> {
  // Runs on after the answer is sent: metrics, webhooks, caches.
  await Promise.resolve();
  console.log('visited', path);
}

export default {
  async fetch(request: Request, env: Record<string, string>, ctx: Context): Promise<Response> {
    const url = new URL(request.url);
    ctx.waitUntil(count(url.pathname));
    if (request.method === 'POST') {
      return Response.json(await request.json(), { status: 201 });
    }
    return Response.json({ message: `Hello, ${url.searchParams.get('name') ?? env.NAME ?? 'world'}!` });
  },
};
