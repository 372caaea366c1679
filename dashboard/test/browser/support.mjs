// The real server over a directory of its own, on free ports, and a real browser.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
const START_MS = 60_000;

/** Path of Chromium, which `tools/chromium` installs if it can; `null`: there is none. */
export function browserProgram() {
  try {
    return execFileSync(join(ROOT, 'tools/chromium'), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
  } catch {
    return null;
  }
}

/** Where a program of ours, or esbuild, is. */
export function program(name) {
  if (name === 'esbuild') {
    return join(ROOT, 'tools/node_modules/@esbuild', process.arch === 'arm64' ? 'linux-arm64' : 'linux-x64', 'bin/esbuild');
  }
  return join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'release', name);
}

export async function startServer() {
  const data = mkdtempSync(join(tmpdir(), 'dashboard-'));
  const child = spawn(program('cloudserve'), ['serve'], {
    cwd: data,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      CLOUDSERVE_ESBUILD: program('esbuild'),
      ...process.env,
      CLOUDSERVE_DATA_DIR: data,
      CLOUDSERVE_API_LISTEN: '127.0.0.1:0',
      CLOUDSERVE_GATEWAY_LISTEN: '127.0.0.1:0',
    },
  });
  const said = [];
  createInterface({ input: child.stderr }).on('line', (line) => said.push(line));
  const addresses = await new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`the server did not start: ${why}\n${said.slice(-20).join('\n')}`));
    const timer = setTimeout(() => fail('no address in time'), START_MS);
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code) => fail(`exit ${code}`));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [, api, gateway] = /^listening api=(\S+) gateway=(\S+)/.exec(line) ?? [];
      if (!api) return;
      clearTimeout(timer);
      resolve({ api, gateway });
    });
  });
  return {
    ...addresses,
    said,
    async stop() {
      if (child.exitCode === null) {
        child.kill('SIGTERM');
        await once(child, 'exit');
      }
      rmSync(data, { recursive: true, force: true });
    },
  };
}

export const DESKTOP = { width: 1360, height: 860 };
export const PHONE = { width: 390, height: 844 };

export async function startBrowser(executablePath) {
  return chromium.launch({ executablePath, args: FLAGS, headless: true });
}

/** A page whose complaints are kept: a policy violation or an error of a script fails the test. */
export async function newPage(browser, baseURL, options = {}) {
  const context = await browser.newContext({ baseURL, viewport: DESKTOP, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const complaints = [];
  await page.exposeFunction('complain', (what) => complaints.push(what));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI, sourceFile, lineNumber, columnNumber }) => {
      // Chromium's own editing tries to keep the style of text that is typed over.
      if (effectiveDirective === 'style-src-attr' && !sourceFile) return;
      globalThis.complain(`${effectiveDirective} blocked ${blockedURI} of ${sourceFile}:${lineNumber}:${columnNumber}`);
    });
  });
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('console', (message) => {
    // Refusals are answers, and the journey asks for some. Violations are told with their place above.
    if (message.type() === 'error' && !/Failed to load resource|Content Security Policy/.test(message.text())) complaints.push(message.text());
  });
  return { context, page, complaints };
}

/** What axe finds wrong with the page, one line each. */
export async function violations(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target.join(' ')} ${failureSummary}`).join(' | ')}`);
  });
  return found;
}

/** Kept where `SCREENSHOTS` says, for people to look at. */
export async function screenshot(page, name) {
  const directory = process.env.SCREENSHOTS;
  if (!directory) return;
  mkdirSync(directory, { recursive: true });
  // Hiding the caret would need a style that the policy forbids.
  await page.screenshot({ path: join(directory, `${name}.png`), caret: 'initial' });
}
