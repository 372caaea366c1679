// Bare node:http. node node.mjs WORKLOAD PORT
import http from 'node:http';

const [workload, port] = process.argv.slice(2);

function json(response, value) {
  const body = JSON.stringify(value);
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const ROUNDS = 3_500_000;
function work() {
  let x = 1;
  for (let i = 0; i < ROUNDS; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  return x;
}

const handlers = {
  hello: async () => (request, response) => json(response, { message: 'hello' }),
  'json-10k': async () => async (request, response) =>
    json(response, JSON.parse((await bodyOf(request)).toString())),
  'echo-1m': async () => async (request, response) => {
    const body = await bodyOf(request);
    response.writeHead(200, {
      'content-type': 'application/octet-stream',
      'content-length': body.length,
    });
    response.end(body);
  },
  packages: async () => {
    const { default: axios } = await import('axios');
    const { default: _ } = await import('lodash');
    return (request, response) =>
      json(response, {
        hello: _.startCase('bench harness'),
        next: axios.getUri({ url: 'https://example.org', params: { n: 1 } }),
      });
  },
  'cpu-5ms': async () => (request, response) => json(response, { x: work() }),
  'sleep-50ms': async () => async (request, response) => {
    await sleep(50);
    json(response, { slept: 50 });
  },
  sse: async () => async (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = 0; n < 10; n++) {
      if (n > 0) await sleep(5);
      response.write(`data: {"n":${n}}\n\n`);
    }
    response.end();
  },
};

const handler = await handlers[workload]();
http.createServer(handler).listen(Number(port), '127.0.0.1');
