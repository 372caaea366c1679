// A Node server that takes in and gives out more than it could keep.
const http = require('node:http');
const heard = { closed: 0, aborted: 0 };

http.createServer((req, res) => {
  const url = new URL(req.url, 'http://h');
  if (url.pathname === '/heard') return res.end(JSON.stringify(heard));
  if (url.pathname === '/up') {
    let length = 0;
    req.on('data', (piece) => (length += piece.length)).on('end', () => res.end(`${length}`));
    return;
  }
  if (url.pathname === '/down') {
    const piece = Buffer.alloc(64 * 1024, 'x');
    let left = Number(url.searchParams.get('mb')) * 16;
    const write = () => {
      while (left > 0) {
        left -= 1;
        if (!res.write(piece)) return res.once('drain', write);
      }
      res.end();
    };
    return write();
  }
  res.on('close', () => (heard.closed += res.writableFinished ? 0 : 1));
  req.on('aborted', () => (heard.aborted += 1));
  res.write('begin');
}).listen(8080);
