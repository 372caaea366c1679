// Ten events, 5 ms apart.
export default {
  fetch() {
    const encoder = new TextEncoder();
    let n = 0;
    const events = new ReadableStream({
      async pull(controller) {
        if (n > 0) await new Promise((done) => setTimeout(done, 5));
        controller.enqueue(encoder.encode(`data: {"n":${n}}\n\n`));
        if (++n === 10) controller.close();
      },
    });
    return new Response(events, { headers: { 'content-type': 'text/event-stream' } });
  },
};
