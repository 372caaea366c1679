// What the HTTP clients of the package suite talk to: a server that says what it was asked, and
// the few answers the clients of particular services need to show what they do with them. Prints
// its addresses as JSON on one line.

import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { gzipSync } from "node:zlib";

const attempts = new Map();

const json = (response, value, status = 200, headers = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
};

const chunk = (content) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;

/** `[pattern, answer(request, response, body, match)]`, the first that matches. */
const routes = [
  [/^\/echo\b/, (request, response, body) =>
    json(response, { method: request.method, url: request.url, headers: request.headers, body })],
  [/^\/status\/(\d+)/, (_, response, __, [, status]) => json(response, { status }, Number(status))],
  [/^\/gzip/, (_, response) => {
    response.writeHead(200, { "content-encoding": "gzip", "content-type": "text/plain" });
    response.end(gzipSync("compressed"));
  }],
  [/^\/redirect/, (_, response) => response.writeHead(302, { location: "/echo" }).end()],
  [/^\/never/, () => {}],
  [/^\/bytes\/(\d+)/, (_, response, __, [, size]) => response.end(Buffer.alloc(Number(size)))],
  // Fails twice for each name.
  [/^\/flaky\/(\S+)/, (_, response, __, [, name]) => {
    const attempt = (attempts.get(name) ?? 0) + 1;
    attempts.set(name, attempt);
    return attempt < 3 ? json(response, {}, 503) : response.end("third time");
  }],
  [/^\/openai\/v1\/chat\/completions/, (request, response, body) => {
    const { model, stream } = JSON.parse(body);
    if (stream) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk("Hel"));
      setImmediate(() => response.end(`${chunk("lo")}data: [DONE]\n\n`));
      return;
    }
    const message = { role: "assistant", content: `Hello from ${model}` };
    json(response, { choices: [{ index: 0, message }] }, 200, {
      "x-authorization": request.headers.authorization,
    });
  }],
  [/^\/openai\//, (_, response) => json(response, { error: { message: "no such model" } }, 404)],
  [/^\/v1\/customers/, (request, response, sent) =>
    json(response, { id: "cus_1", sent, idempotencyKey: request.headers["idempotency-key"] })],
  [/^\/rest\/v1\/people/, (request, response) =>
    json(response, [{ url: request.url, key: request.headers.apikey }])],
  [/^\/rest\/v1\//, (_, response) => json(response, { code: "PGRST116", message: "no rows" }, 406)],
  [/^\/github\/repos\/o\/x\/issues(\?.*page=2)?/, (request, response, _, [, second]) =>
    second
      ? json(response, [{ number: 3 }])
      : json(response, [{ number: 1 }, { number: 2 }], 200, {
        link: `<http://${request.headers.host}/github/repos/o/x/issues?page=2>; rel="next"`,
      })],
  [/^\/github\/repos\/o\/x/, (request, response) =>
    json(response, { name: "x", token: request.headers.authorization })],
  [/^\/github\//, (_, response) => json(response, { message: "Not Found" }, 404)],
];

const http = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces).toString();
  for (const [pattern, answer] of routes) {
    const match = pattern.exec(request.url);
    if (match) return answer(request, response, body, match);
  }
  json(response, { error: `no route ${request.url}` }, 404);
});

/** Enough of SMTP to take one mail at a time and to say what was in it. */
const smtp = createTcpServer((socket) => {
  let mail = null;
  let rest = "";
  const say = (line) => socket.write(`${line}\r\n`);
  const command = (line) => {
    if (mail !== null) {
      if (line !== ".") return mail.push(line);
      const n = mail.filter((text) => /^content-disposition: attachment/i.test(text)).length;
      mail = null;
      return say(`250 queued ${n} attachment`);
    }
    if (/^DATA/i.test(line)) {
      mail = [];
      return say("354 go on");
    }
    if (/^QUIT/i.test(line)) {
      say("221 bye");
      return socket.end();
    }
    say("250 ok");
  };
  socket.setEncoding("utf8");
  socket.on("error", () => {});
  socket.on("data", (text) => {
    const lines = (rest + text).split("\r\n");
    rest = lines.pop();
    lines.forEach(command);
  });
  say("220 local ESMTP");
});

const listening = (server) =>
  new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));

const [port, smtpPort] = [await listening(http), await listening(smtp)];
console.log(JSON.stringify({ upstream: `http://127.0.0.1:${port}`, smtp: String(smtpPort) }));
