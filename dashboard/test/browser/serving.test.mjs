// How the server hands out the dashboard.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { startServer } from './support.mjs';

const WWW = new URL('../../dist/www/', import.meta.url);
/** Without the editor, which is loaded when it is needed. */
const MAX_BUNDLE_BYTES = 300 * 1024;

test('the bundle is small', () => {
  const files = readdirSync(new URL('assets/', WWW)).filter((name) => /\.(?:js|css)$/.test(name) && !name.startsWith('codemirror'));
  const bytes = files.reduce((sum, name) => sum + gzipSync(readFileSync(new URL(`assets/${name}`, WWW))).length, 0);
  assert.ok(files.length >= 2 && bytes < MAX_BUNDLE_BYTES, `${bytes} bytes in ${files}`);
});

describe('the server', () => {
  let server;
  before(async () => {
    server = await startServer();
  });
  after(() => server?.stop());
  const get = (path, headers = {}, method = 'GET') => fetch(server.api + path, { method, headers, redirect: 'manual' });

  test('every page is the application, under a strict policy', async () => {
    for (const path of ['/', '/keys', '/functions/1/logs', '/no/such/page']) {
      const answer = await get(path);
      assert.equal(answer.status, 200, path);
      assert.match(answer.headers.get('content-type'), /^text\/html/);
      assert.equal(answer.headers.get('cache-control'), 'no-cache');
      const policy = answer.headers.get('content-security-policy');
      assert.match(policy, /default-src 'none'/);
      assert.ok(!/unsafe|\*/.test(policy), policy);
      assert.match(await answer.text(), /<div id="app">/);
    }
  });

  test('files with their hash in their name may be kept for ever; others are asked for again', async () => {
    const [, script] = /src="(\/assets\/[^"]+\.js)"/.exec(await (await get('/')).text());
    const hashed = await get(script, { 'accept-encoding': 'gzip' });
    assert.match(hashed.headers.get('cache-control'), /immutable/);
    assert.equal(hashed.headers.get('content-encoding'), 'gzip');
    const plain = await get(script, { 'accept-encoding': 'identity' });
    assert.equal(plain.headers.get('content-encoding'), null);
    assert.deepEqual(await plain.text(), await hashed.text());

    const page = await get('/');
    const again = await get('/', { 'if-none-match': page.headers.get('etag') });
    assert.equal(again.status, 304);
  });

  test('what is not a page is never answered with one', async () => {
    for (const [path, method, status] of [
      ['/api/no-such-route', 'GET', 404], ['/api', 'GET', 404], ['/run/a/b', 'GET', 404],
      ['/assets/none.js', 'GET', 404], ['/favicon.ico', 'GET', 404], ['/keys', 'POST', 404],
      ['/api/auth/me', 'GET', 401], ['/healthz', 'GET', 200],
    ]) {
      const answer = await get(path, {}, method);
      assert.equal(answer.status, status, `${method} ${path}`);
      assert.ok(!/<html/.test(await answer.text()), path);
    }
  });
});
