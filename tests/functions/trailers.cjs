// A server that says of a body, after its own, what it knows once it has come.
const http = require('node:http');

const server = http.createServer((req, res) => {
  res.writeHead(200, { 'content-type': 'text/plain', trailer: 'x-length, x-heard' });
  let length = 0;
  req.on('data', (piece) => {
    length += piece.length;
    res.write(piece);
  });
  req.on('end', () => {
    res.addTrailers({ 'X-Length': String(length), 'X-Heard': JSON.stringify(req.trailers) });
    res.end();
  });
});
server.listen(process.env.PORT ?? 3000, () => console.log(`port=${server.address().port}`));
