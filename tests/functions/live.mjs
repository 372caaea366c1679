// Answers that are under way: events that wait for their reader, and callers that hang up.
const heard = { fetch: 0, cancel: 0 };
const encoder = new TextEncoder();

async function* lines(stream) {
  let text = '';
  for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const parts = text.split('\n');
    text = parts.pop();
    yield* parts;
  }
}

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/heard') return Response.json(heard);
    if (pathname === '/events') {
      // Each event leaves when the one before has been read: the caller says so.
      const acks = lines(request.body);
      let n = 0;
      const body = new ReadableStream({
        async pull(controller) {
          if (n > 0 && (await acks.next()).done) return controller.close();
          controller.enqueue(encoder.encode(`data: ${n}\n\n`));
          n += 1;
        },
      }, { highWaterMark: 0 });
      return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    }
    request.signal.addEventListener('abort', () => (heard.fetch += 1));
    if (pathname === '/hang') return new Promise((_, reject) => {
      request.signal.addEventListener('abort', () => reject(request.signal.reason));
    });
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(encoder.encode('begin')),
      cancel: () => { heard.cancel += 1; },
    });
    return new Response(body);
  },
};
