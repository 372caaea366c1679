// A server that is asked before a body is sent to it, and refuses large ones.
const http = require('node:http');

const server = http.createServer((req, res) => {
  let length = 0;
  req.on('data', (piece) => (length += piece.length));
  req.on('end', () => res.end(`${req.headers.expect}: ${length}`));
});
if (process.env.ASKS) {
  server.on('checkContinue', (req, res) => {
    if (Number(req.headers['content-length']) > 10) return res.writeHead(417).end('too much');
    res.writeContinue();
    server.emit('request', req, res);
  });
}
server.listen(process.env.PORT ?? 3000);
