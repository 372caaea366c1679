// The main journey of the dashboard in a real Chromium, against the real server.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { DESKTOP, PHONE, browserProgram, newPage, screenshot, startBrowser, startServer, violations } from './support.mjs';

const program = browserProgram();
if (!program) console.log('\n*** The dashboard was NOT tested in a browser: there is no Chromium. ***\n');

describe('the dashboard', { skip: program ? false : 'there is no Chromium', timeout: 300_000 }, () => {
  let server;
  let browser;
  let page;
  let complaints;
  let context;

  before(async () => {
    server = await startServer();
    browser = await startBrowser(program);
    ({ page, complaints, context } = await newPage(browser, server.api));
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** The page as it is, at both widths and in both themes: nothing that axe objects to, nothing
   * wider than a phone. */
  async function isSound(name) {
    for (const [width, size] of [['desktop', DESKTOP], ['phone', PHONE]]) {
      await page.setViewportSize(size);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        await screenshot(page, `${name}-${width}-${colorScheme}`);
        assert.deepEqual(await violations(page), [], `${name}, ${width}, ${colorScheme}`);
      }
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `${name} is ${overflow} px too wide at ${width}`);
    }
    await page.setViewportSize(DESKTOP);
    await page.emulateMedia({ colorScheme: 'light' });
  }

  const editorText = () => page.locator('.cm-content').first();
  const live = (version) => page.getByRole('heading', { name: `Version ${version} is live` }).waitFor();
  async function write(code) {
    await editorText().click();
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.insertText(code);
  }
  const greet = (word) => `export default async (event) => {\n  console.log('${word}', event.query.name);\n  return { said: '${word}' };\n};\n`;

  test('sign up', async () => {
    await page.goto('/');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await isSound('sign-in');
    await page.getByRole('link', { name: 'Create an account' }).click();
    await page.getByLabel('Full name').fill('Ada Lovelace');
    await page.getByLabel('User name').fill('ada');
    await page.getByLabel('Email').fill('ada@example.org');
    await page.getByLabel('Password').fill('short');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.locator('.field-error').waitFor();
    await isSound('sign-up');
    await page.getByLabel('Password').fill('correct horse battery');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByRole('heading', { name: 'Deploy your first function' }).waitFor();
    await isSound('first');
  });

  test('no script can read the session', async () => {
    assert.equal(await page.evaluate(() => document.cookie), '');
    const cookie = (await context.cookies()).find(({ name }) => name === 'token');
    assert.equal(cookie?.httpOnly, true);
    assert.equal(cookie?.sameSite, 'Strict');
  });

  test('write a function and deploy it', async () => {
    await page.getByRole('link', { name: 'Hello One handler' }).click();
    await page.getByLabel('Function name').fill('greeter');
    await editorText().waitFor();
    await write(greet('first'));
    await isSound('new');
    await page.getByRole('button', { name: 'Deploy', exact: true }).click();
    await page.waitForURL(/\/functions\/[^/]+\/code/);
    await page.getByRole('heading', { name: 'greeter' }).waitFor();
  });

  test('a failed deploy says why and changes nothing that is served', async () => {
    await write('export default () => {');
    await page.keyboard.press('ControlOrMeta+s');
    await page.getByRole('heading', { name: 'The deploy failed' }).waitFor();
    assert.match(await page.locator('.steps .notice').innerText(), /Version 1 goes on answering/);
    await isSound('failed');
  });

  test('invoke it', async () => {
    await write(greet('second'));
    await page.keyboard.press('ControlOrMeta+s');
    await live(3);
    await page.getByLabel('Path and query').fill('/?name=Grace');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('.answer-line .code').waitFor();
    assert.equal(await page.locator('.answer-line .code').innerText(), '200');
    assert.match(await page.getByLabel('Body of the answer').innerText(), /"said": "second"/);
    await page.locator('.invoke .log-message', { hasText: 'second Grace' }).waitFor();
    await page.getByLabel('Path and query').fill('/?name=Keys');
    await editorText().click();
    await page.keyboard.press('ControlOrMeta+Enter');
    await page.locator('.invoke .log-message', { hasText: 'second Keys' }).waitFor();
    assert.ok(await page.getByRole('button', { name: 'Deploy', exact: true }).isDisabled(), 'the keys wrote something');
    await page.getByLabel('Path and query').fill('/?name=Grace');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.locator('.invoke .log-message', { hasText: 'second Grace' }).waitFor();
    await isSound('code');
  });

  test('what is written and not deployed outlives the tab and the session', async () => {
    const written = () => editorText().filter({ hasText: 'not deployed yet' }).waitFor();
    await write(greet('not deployed yet'));
    await page.getByRole('link', { name: 'Versions' }).click();
    await page.getByRole('heading', { name: 'Versions' }).waitFor();
    await page.getByRole('link', { name: 'Code', exact: true }).click();
    await written();
    await context.clearCookies();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.getByLabel('Email or user name').fill('ada');
    await page.getByLabel('Password').fill('correct horse battery');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await written();
    await page.getByRole('button', { name: 'Discard' }).click();
    await editorText().filter({ hasText: 'second' }).waitFor();
  });

  test('files that are not text are not lost by a deploy from here', async () => {
    const files = { 'index.mjs': 'export default () => 1;', 'logo.bin': { base64: '/w==' } };
    const answer = await page.request.post('/api/function/deploy?wait=true', { data: { name: 'with-logo', files }, headers: { 'sec-fetch-site': 'same-origin' } });
    const { id } = await answer.json();
    const code = page.url();
    await page.goto(`/functions/${id}/code`);
    await editorText().waitFor();
    await write('export default () => 2;');
    await page.keyboard.press('ControlOrMeta+s');
    await page.getByText('deployed from the command line').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Deploy', exact: true }).isDisabled());
    const { version } = await (await page.request.get(`/api/function/${id}`)).json();
    assert.equal(version, 1);
    await page.getByRole('button', { name: 'Discard' }).click();
    await page.request.delete(`/api/function/${id}`, { headers: { 'sec-fetch-site': 'same-origin' } });
    await page.goto(code);
    await page.getByRole('heading', { name: 'greeter' }).waitFor();
  });

  test('a new function replaces none that is there', async () => {
    const code = page.url();
    await page.getByRole('link', { name: 'New function' }).click();
    await page.getByLabel('Function name').fill('greeter');
    await page.getByText('There is a function of this name').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Deploy', exact: true }).isDisabled());
    await page.goto(code);
    await page.getByRole('heading', { name: 'greeter' }).waitFor();
  });

  test('a log line arrives while one looks', async () => {
    await page.getByRole('link', { name: 'Logs', exact: true }).click();
    await page.locator('.log-message', { hasText: 'second Grace' }).first().waitFor();
    await page.locator('.live', { hasText: 'Live' }).waitFor();
    const id = page.url().split('/').at(-2);
    const before = await page.locator('.log').count();
    const answer = await page.request.post(`/api/function/${id}/invoke`, { data: { path: '/?name=Live' }, headers: { 'sec-fetch-site': 'same-origin' } });
    assert.equal(answer.status(), 200);
    await page.locator('.log-message', { hasText: 'second Live' }).waitFor();
    assert.equal(await page.locator('.log').count(), before + 1);

    await page.getByRole('button', { name: 'error', exact: true }).click();
    await page.getByText('No line matches the filter').waitFor();
    await page.getByRole('button', { name: 'error', exact: true }).click();
    await page.getByLabel('Filter by text or call').fill('live');
    await page.locator('.log').first().waitFor();
    assert.equal(await page.locator('.log').count(), 1);
    await page.getByLabel('Filter by text or call').fill('');
    await isSound('logs');

    // A call is found by its id however old it is: here the list has none.
    const { logs } = await (await page.request.get(`/api/logs/${id}?limit=1`)).json();
    await page.route('**/api/logs/*?limit=*', (route) => route.fulfill({ json: { logs: [], next: null } }));
    const log = page.url();
    await page.goto(`${log}?call=${logs[0].executionId}`);
    await page.locator('.log-message', { hasText: 'second Live' }).waitFor();
    await page.unroute('**/api/logs/*?limit=*');
    await page.goto(log);
    await page.locator('.log-message', { hasText: 'second Live' }).waitFor();
  });

  test('the chart moves', async () => {
    await page.getByRole('link', { name: 'Overview' }).click();
    const calls = () => page.locator('.tiles').getAttribute('data-calls').then(Number);
    await page.locator('.chart canvas').first().waitFor();
    const before = await calls();
    assert.ok(before >= 2, `${before} calls`);
    const id = page.url().split('/').at(-1);
    await page.request.post(`/api/function/${id}/invoke`, { data: {}, headers: { 'sec-fetch-site': 'same-origin' } });
    await page.waitForFunction((before) => Number(document.querySelector('.tiles')?.dataset.calls) > before, before);
    await isSound('overview');
    await page.getByRole('link', { name: 'Usage' }).click();
    await page.getByRole('heading', { name: 'By day (UTC)' }).waitFor();
    await page.getByRole('button', { name: '24h' }).click();
    await page.locator('.chart canvas').first().waitFor();
    await isSound('usage');
  });

  test('compare versions and roll back', async () => {
    await page.getByRole('navigation', { name: 'Recent functions' }).getByRole('link', { name: 'greeter' }).click();
    await page.getByRole('link', { name: 'Versions' }).click();
    await page.getByRole('button', { name: 'Compare version 1 with what is live' }).click();
    await page.locator('.cm-deletedChunk', { hasText: 'second' }).first().waitFor();
    await isSound('versions');
    await page.getByRole('button', { name: 'Roll back to version 1' }).click();
    await isSound('roll-back');
    await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click();
    await page.getByRole('button', { name: 'Roll forward' }).or(page.getByRole('button', { name: 'Roll back to version 3' })).first().waitFor();
    const id = page.url().split('/').at(-2);
    const answer = await page.request.post(`/api/function/${id}/invoke`, { data: {}, headers: { 'sec-fetch-site': 'same-origin' } });
    assert.match((await answer.json()).body, /first/);
  });

  test('set a secret, which is never shown again', async () => {
    await page.getByRole('link', { name: 'Environment' }).click();
    await page.getByRole('heading', { name: 'No variables yet' }).waitFor();
    await isSound('env-empty');
    await page.getByLabel('Name', { exact: true }).fill('API_TOKEN');
    await page.getByLabel('Value', { exact: true }).fill('s3cret-value');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('cell', { name: 'API_TOKEN', exact: true }).waitFor();
    assert.ok(!(await page.content()).includes('s3cret-value'));
    await isSound('env');
    await page.getByRole('link', { name: 'Settings' }).click();
    await isSound('settings');
  });

  test('create a key, use it, revoke it, see it refused', async () => {
    await page.getByRole('link', { name: 'API keys' }).click();
    await page.getByRole('heading', { name: 'No keys yet' }).waitFor();
    await isSound('keys-empty');
    await page.getByRole('button', { name: 'Create key' }).click();
    await page.getByLabel('Name', { exact: true }).fill('ci');
    await page.getByRole('button', { name: 'Chosen ones' }).click();
    assert.ok(await page.getByRole('button', { name: 'Create', exact: true }).isDisabled(), 'a key for nothing');
    await page.getByRole('group', { name: 'Chosen functions' }).getByLabel('greeter').check();
    await isSound('key-create');
    await page.getByRole('button', { name: 'Create', exact: true }).click();
    const key = await page.locator('.new-key').innerText();
    assert.match(key, /^cs_live_/);
    // It is shown once: neither a click beside it nor a selection that ends there closes it.
    await page.mouse.click(4, 4);
    await page.locator('.new-key').hover();
    await page.mouse.down();
    await page.mouse.move(4, 4);
    await page.mouse.up();
    assert.ok(await page.locator('.new-key').isVisible());
    // Without the clipboard, which browsers give to secure contexts alone, it can be copied as well.
    await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }));
    await page.getByRole('button', { name: 'Copy the key' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    await page.getByRole('button', { name: 'Done' }).click();
    const call = () => fetch(`${server.gateway}/run/ada/greeter`, { headers: { 'x-api-key': key } });
    assert.equal((await call()).status, 200);
    await page.getByRole('cell', { name: 'greeter', exact: true }).first().waitFor();
    await page.getByRole('cell', { name: 'Key created' }).waitFor();
    await page.getByRole('cell', { name: 'Rolled back' }).waitFor();
    await isSound('keys');
    await page.getByRole('button', { name: 'Revoke ci' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('heading', { name: 'No keys yet' }).waitFor();
    await page.getByRole('cell', { name: 'Key revoked' }).waitFor();
    assert.equal((await call()).status, 401);
  });

  test('keyboard alone', async () => {
    await page.keyboard.press('ControlOrMeta+k');
    await page.getByRole('combobox').fill('greeter logs');
    await isSound('palette');
    await page.keyboard.press('Enter');
    await page.waitForURL(/\/logs$/);
    await page.locator('.live', { hasText: 'Live' }).waitFor();
    await page.keyboard.press('g');
    await page.keyboard.press('f');
    await page.getByRole('heading', { name: 'Functions', exact: true }).waitFor();
    await page.getByRole('link', { name: 'greeter' }).first().waitFor();
    await isSound('functions');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
    await page.keyboard.press('Escape');
  });

  test('somebody else who signs in in another tab sees nothing of the first', async () => {
    const post = (path, data) => page.request.post(path, { data, headers: { 'sec-fetch-site': 'same-origin' } });
    const password = 'correct horse battery';
    await post('/api/auth/register', { fullName: 'Grace Hopper', userName: 'grace', email: 'grace@example.org', password });
    for (const [userName, sees] of [['grace', 'Deploy your first function'], ['ada', 'greeter']]) {
      await post('/api/auth/login', { userName, password });
      await page.evaluate(() => dispatchEvent(new Event('focus')));
      await page.locator('.who', { hasText: userName }).waitFor();
      await page.getByText(sees).first().waitFor();
      assert.equal(await page.getByText('greeter').count() > 0, userName === 'ada');
    }
  });

  test('the account, and out', async () => {
    await page.keyboard.press('g');
    await page.keyboard.press('a');
    await page.getByRole('heading', { name: 'Quotas' }).waitFor();
    await page.waitForFunction(() => document.title === 'Account · CloudServe');
    // A server that is gone is told, and what is known stays.
    await page.route('**/api/function?*', (route) => route.abort());
    await page.getByText('The server cannot be reached').waitFor();
    await page.getByRole('heading', { name: 'Quotas' }).waitFor();
    await page.unroute('**/api/function?*');
    await page.getByText('The server cannot be reached').waitFor({ state: 'detached' });
    await page.getByText('Calls today').waitFor();
    await isSound('account');
    // While an installation is upgraded, an older server may answer.
    await page.route('**/api/account/quota', async (route) => {
      const quota = await (await route.fetch()).json();
      delete quota.functions;
      delete quota.storedBytes;
      await route.fulfill({ json: quota });
    });
    await page.reload();
    await page.getByText('Calls today').waitFor();
    await page.unroute('**/api/account/quota');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    // A page of the account asks who is there before it shows anything, and comes back after.
    await page.goto('/keys');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.getByLabel('Email or user name').fill('ada');
    await page.getByLabel('Password').fill('correct horse battery');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'API keys' }).waitFor();
  });

  test('an account that was made and not signed in to is not to be made again', async () => {
    await page.request.post('/api/auth/logout', { headers: { 'sec-fetch-site': 'same-origin' } });
    const error = { code: 'too_many_attempts', message: 'too many failed logins' };
    await page.route('**/api/auth/login', (route) => route.fulfill({ status: 429, headers: { 'retry-after': '7' }, json: { error } }));
    await page.goto('/signup');
    await page.getByLabel('Full name').fill('Mary Somerville');
    await page.getByLabel('User name').fill('mary');
    await page.getByLabel('Email').fill('mary@example.org');
    await page.getByLabel('Password').fill('correct horse battery');
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.getByText('Your account was made').filter({ hasText: 'Try again in 7 s' }).waitFor();
    assert.equal(await page.getByLabel('Email or user name').inputValue(), 'mary@example.org');
    await isSound('signed-up');
    await page.unroute('**/api/auth/login');
    await page.getByLabel('Password').fill('correct horse battery');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'Deploy your first function' }).waitFor();
  });

  test('no policy was violated and no script failed', () => assert.deepEqual(complaints, []));
});
