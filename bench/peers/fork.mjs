// The classic design: for each call, fetch the function's archive from a store, unpack it (code and
// node_modules), fork a Node process that loads it and answers, throw everything away.
// node fork.mjs WORKLOAD PORT
import { execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { rm, mkdtemp } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [workload, port] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));

const sources = {
  hello: `module.exports = () => ({ message: 'hello' });`,
  packages: `
    const axios = require('axios');
    const _ = require('lodash');
    module.exports = () => ({
      hello: _.startCase('bench harness'),
      next: axios.getUri({ url: 'https://example.org', params: { n: 1 } }),
    });`,
};

const imports = { hello: [], packages: ['axios', 'lodash'] };

// A package and all it needs, as the lock file says.
function withDependencies(names) {
  const locked = JSON.parse(readFileSync(join(here, 'package-lock.json'), 'utf8')).packages;
  const found = new Set(names);
  for (const name of found) {
    Object.keys(locked[`node_modules/${name}`].dependencies ?? {}).forEach((n) => found.add(n));
  }
  return found;
}

function archive() {
  const dir = mkdtempSync(join(tmpdir(), 'fork-peer-'));
  const tree = join(dir, 'function');
  mkdirSync(join(tree, 'node_modules'), { recursive: true });
  writeFileSync(join(tree, 'index.cjs'), sources[workload]);
  for (const name of withDependencies(imports[workload])) {
    cpSync(join(here, 'node_modules', name), join(tree, 'node_modules', name), { recursive: true });
  }
  execFileSync('tar', ['-czf', join(dir, 'function.tgz'), '-C', tree, '.']);
  const bytes = readFileSync(join(dir, 'function.tgz'));
  rmSync(dir, { recursive: true });
  return bytes;
}

// The store: an HTTP server as an object store is one.
const bytes = archive();
const store = http.createServer((request, response) => response.end(bytes));
store.listen(0, '127.0.0.1');
await once(store, 'listening');
const storeUrl = `http://127.0.0.1:${store.address().port}/function.tgz`;

async function call(event) {
  const dir = await mkdtemp(join(tmpdir(), 'fork-peer-'));
  try {
    const download = await fetch(storeUrl);
    const tar = spawn('tar', ['-xzf', '-', '-C', dir], { stdio: ['pipe', 'ignore', 'inherit'] });
    tar.stdin.end(Buffer.from(await download.arrayBuffer()));
    const [code] = await once(tar, 'exit');
    if (code !== 0) throw new Error(`tar ended with ${code}`);
    const child = fork(join(here, 'fork-child.cjs'), [join(dir, 'index.cjs')]);
    const answer = await new Promise((resolve, reject) => {
      child.once('message', resolve);
      child.once('error', reject);
      child.once('exit', (status) => reject(new Error(`the child ended with ${status}`)));
      child.send(event);
    });
    child.kill();
    return answer;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const server = http.createServer(async (request, response) => {
  try {
    const answer = await call({ method: request.method, path: request.url });
    const body = JSON.stringify(answer);
    response.writeHead(200, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    });
    response.end(body);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(Number(port), '127.0.0.1');
