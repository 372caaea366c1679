// Bodies in pieces, both ways.
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as after } from 'node:timers/promises';

const encoder = new TextEncoder();

const routes = {
  async *'/events'() {
    for (let n = 1; n <= 3; n += 1) {
      yield encoder.encode(`data: ${n}\n\n`);
      await after(150);
    }
  },
  async *'/large'(url) {
    const piece = new Uint8Array(64 * 1024).fill(120);
    const n = Number(url.searchParams.get('mb')) * 16;
    for (let i = 0; i < n; i += 1) yield piece;
  },
  async *'/broken'() {
    yield encoder.encode('before');
    await after(50);
    throw new Error('secret detail');
  },
};

let cancelled = 0;
const cancel = () => (cancelled += 1);

/** Streams without an end. It counts when they are given up. */
const endless = {
  '/web': () => new ReadableStream({ pull: (c) => c.enqueue(encoder.encode('x')), cancel }),
  '/node': () => new Readable({ read() {}, destroy: (error, done) => done(error, cancel()) }),
  '/unusable': () => new ReadableStream({
    start(controller) {
      controller.enqueue(encoder.encode('before'));
      after(50).then(() => controller.enqueue(() => 'no piece'));
    },
    cancel,
  }),
};

export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === '/cancelled') return Response.json(cancelled);
    if (endless[url.pathname]) return { statusCode: 200, body: endless[url.pathname]() };
    if (url.pathname === '/echo') return new Response(request.body);
    if (url.pathname === '/digest') {
      const hash = createHash('sha256');
      let pieces = 0;
      for await (const piece of request.body) {
        hash.update(piece);
        pieces += 1;
      }
      return Response.json({ digest: hash.digest('hex'), pieces });
    }
    if (url.pathname === '/ignore') return new Response('ignored');
    const pieces = routes[url.pathname](url);
    return new Response(ReadableStream.from(pieces), {
      headers: { 'content-type': 'text/event-stream' },
    });
  },
};
