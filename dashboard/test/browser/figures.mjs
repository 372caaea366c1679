// Figures of docs/SPECIFICATION.md that people feel, measured in a real Chromium against the real
// server. Run by hand on a quiet machine: `node dashboard/test/browser/figures.mjs`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { browserProgram, newPage, program, startBrowser, startServer } from './support.mjs';

const ROUNDS = 30;

function tell(what, times) {
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(0);
  console.log(`${what}: p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, ${times.length} times`);
}

async function json(url, method, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(url, { method, headers, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${url}: ${answer.status}`);
  return answer.json();
}

/** From the navigation until the list of functions can be used, with nothing cached. */
async function interactive(browser, server, password) {
  const times = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { context, page } = await newPage(browser, server.api);
    await page.request.post('/api/auth/login', { data: { userName: 'ada', password }, headers: { 'sec-fetch-site': 'same-origin' } });
    await page.addInitScript(() => {
      const look = () => {
        const is = [...document.querySelectorAll('button')].some((button) => button.textContent === 'New function');
        if (is && document.querySelector('.rows a')) globalThis.usableAt ??= performance.now();
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    await page.goto('/');
    times.push(await page.waitForFunction(() => globalThis.usableAt).then((handle) => handle.jsonValue()));
    await context.close();
  }
  tell('dashboard, until it can be used', times);
}

/** From `console.log` in a function until the line is in the page. */
async function logLatency(browser, server, password, id, token) {
  const { page, context } = await newPage(browser, server.api);
  await page.request.post('/api/auth/login', { data: { userName: 'ada', password }, headers: { 'sec-fetch-site': 'same-origin' } });
  await page.goto(`/functions/${id}/logs`);
  await page.locator('.live', { hasText: 'Live' }).waitFor();
  await page.evaluate(() => {
    globalThis.seen = new Map();
    new MutationObserver(() => {
      for (const line of document.querySelectorAll('.log-message')) {
        const [, at] = /^said at (\d+)/.exec(line.textContent) ?? [];
        if (at && !globalThis.seen.has(at)) globalThis.seen.set(at, Date.now() - Number(at));
      }
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
  for (let round = 0; round < ROUNDS; round += 1) {
    await fetch(`${server.gateway}/run/ada/teller`, { headers: { authorization: `Bearer ${token}` } });
    await pause(150 + Math.random() * 100);
  }
  await page.waitForFunction((rounds) => globalThis.seen.size >= rounds, ROUNDS);
  tell('from console.log to the page', await page.evaluate(() => [...globalThis.seen.values()]));
  await context.close();
}

/** From the change of a file until `cloudserve dev` answers with it. */
async function reload() {
  const folder = mkdtempSync(join(tmpdir(), 'figures-dev-'));
  const write = (n) => writeFileSync(join(folder, 'index.mjs'), `export default () => 'round ${n}';\n`);
  write(0);
  const dev = spawn(program('cloudserve'), ['dev', folder, '--json'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...esbuild() } });
  const url = await new Promise((resolve, reject) => {
    dev.once('exit', (code) => reject(new Error(`dev ended: ${code}`)));
    createInterface({ input: dev.stdout }).on('line', (line) => {
      const { url } = JSON.parse(line);
      if (url) resolve(url);
    });
  });
  const times = [];
  for (let round = 1; round <= ROUNDS; round += 1) {
    await pause(300);
    const begun = performance.now();
    write(round);
    while ((await (await fetch(url)).text()) !== `round ${round}`) await pause(5);
    times.push(performance.now() - begun);
  }
  dev.kill('SIGTERM');
  await once(dev, 'exit');
  rmSync(folder, { recursive: true, force: true });
  tell('dev, from a change to its answer', times);
}

const esbuild = () => ({ CLOUDSERVE_ESBUILD: process.env.CLOUDSERVE_ESBUILD ?? program('esbuild') });

console.log(`load average ${readFileSync('/proc/loadavg', 'utf8').trim()}`);
const path = browserProgram();
assert.ok(path, 'there is no Chromium');
const server = await startServer();
const browser = await startBrowser(path);
try {
  const password = 'correct horse battery';
  const { token } = await json(`${server.api}/api/auth/register`, 'POST', { fullName: 'Ada', userName: 'ada', email: 'ada@example.org', password });
  const code = "export default () => { console.log('said at', Date.now()); return 'said'; };";
  const { id } = await json(`${server.api}/api/function/deploy?wait=true`, 'POST', { name: 'teller', code, filename: 'teller.mjs' }, token);
  await interactive(browser, server, password);
  await logLatency(browser, server, password, id, token);
} finally {
  await browser.close();
  await server.stop();
}
await reload();
console.log(`load average ${readFileSync('/proc/loadavg', 'utf8').trim()}`);
