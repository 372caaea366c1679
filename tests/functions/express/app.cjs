// An Express app that says what it was asked, in ways in which servers can differ.
const crypto = require('node:crypto');
const { Readable } = require('node:stream');
const express = require('express');

const app = express();

app.get('/', (req, res) => res.send('<h1>home</h1>'));
app.get('/hello/:name', (req, res) => res.json({ params: req.params, query: req.query }));
app.post('/json', express.json(), (req, res) => res.status(201).json({ got: req.body }));
app.post('/form', express.urlencoded({ extended: true }), (req, res) => res.json(req.body));
app.all('/method', (req, res) => res.set('x-method', req.method).send(req.method));
app.get('/headers', (req, res) => {
  res.set('x-one', req.get('x-one'));
  res.append('x-many', 'a').append('x-many', 'b');
  res.set('content-language', 'de').type('text').send(`${req.get('x-two')} ${req.headers['x-two']}`);
});
app.get('/cookies', (req, res) => {
  res.cookie('a', '1', { httpOnly: true });
  res.cookie('b', 'zwei;', { path: '/b', sameSite: 'lax' });
  res.clearCookie('c');
  res.json(req.headers.cookie ?? null);
});
app.get('/raw', (req, res) => {
  res.writeHead(202, 'Taken', ['X-Raw', '1', 'Set-Cookie', 'x=1']);
  res.write('one,');
  res.write(Buffer.from('two,'));
  res.end('ü', 'utf8');
});
app.get('/status/:code', (req, res) => res.sendStatus(Number(req.params.code)));
app.get('/redirect', (req, res) => res.redirect('/hello/there'));
app.get('/moved', (req, res) => res.redirect(301, 'https://example.org/new?a=b c'));
app.get('/empty', (req, res) => res.status(204).end());
app.get('/etag', (req, res) => res.set('etag', '"v1"').send('cached'));
app.get('/bytes', (req, res) => res.send(Buffer.from([0, 1, 254, 255])));
app.get('/throw', () => {
  throw new Error('thrown');
});
app.get('/reject', async () => {
  throw Object.assign(new Error('rejected'), { status: 409 });
});
app.get('/download', (req, res) => {
  const pieces = Array.from({ length: 48 }, (_, i) => Buffer.alloc(64 * 1024, i));
  res.type('application/octet-stream');
  Readable.from(pieces).pipe(res);
});
app.post('/upload', (req, res, next) => {
  const hash = crypto.createHash('sha256');
  let length = 0;
  const answer = () => res.json({ length, sha256: hash.digest('hex') });
  // A platform may have read the body before.
  if (Buffer.isBuffer(req.body)) {
    length = req.body.length;
    hash.update(req.body);
    return answer();
  }
  req.on('data', (piece) => {
    length += piece.length;
    hash.update(piece);
  });
  req.on('end', answer).on('error', next);
});

module.exports = app;
