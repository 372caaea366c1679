// The parts that need no browser. Vite turns the TypeScript into modules.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createServer } from 'vite';

describe('lib', () => {
  let vite;
  let format;
  let logs;
  let dotenv;
  let versions;
  let api;
  let drafts;
  let templates;
  let store;
  before(async () => {
    vite = await createServer({ server: { middlewareMode: true, ws: false, hmr: false }, appType: 'custom', logLevel: 'error', optimizeDeps: { noDiscovery: true } });
    const names = ['format', 'logs', 'dotenv', 'versions', 'drafts', 'templates', 'api'];
    [format, logs, dotenv, versions, drafts, templates, api] = await Promise.all(names.map((name) => vite.ssrLoadModule(`/src/lib/${name}.ts`)));
    store = await vite.ssrLoadModule('/src/lib/store.tsx');
  });
  after(() => vite?.close());

  test('figures are short and honest', () => {
    const cases = [
      [format.milliseconds(0.123), '0.12 ms'], [format.milliseconds(5.04), '5.0 ms'], [format.milliseconds(1_234), '1.23 s'],
      [format.milliseconds(119_600), '2 min 0 s'], [format.milliseconds(null), '–'], [format.percent(0, 0), '–'], [format.percent(1, 100_000), '<0.1%'], [format.percent(1, 3), '33%'],
      [format.bytes(1_536), '1.5 KB'], [format.bytes(10 * 1_024 ** 3), '10.0 GB'], [format.count(1_234), '1,234'], [format.count(1_234_567), '1.2M'],
      [format.ago(1_000, 3_000), 'just now'], [format.ago(0, 3_600_000 * 5), '5 h ago'],
    ];
    for (const [got, expected] of cases) assert.equal(got, expected);
    // Days begin at midnight: the first one that is shown is a whole one.
    assert.equal(format.utcDay(13, Date.parse('2026-03-14T15:09:26.535Z')), '2026-03-01T00:00:00.000Z');
  });

  test('an answer is made readable, and nothing else of it changes', () => {
    for (const [json, shown] of [
      ['{"a":[1,"b \\" c"]}', '{\n  "a": [\n    1,\n    "b \\" c"\n  ]\n}'],
      ['{ "a" :\n 1 }', '{\n  "a": 1\n}'],
      ...['{"id":12345678901234567890}', '{"n":1.0}', '{"a":1,"a":2}', '{"a":', ''].map((text) => [text, text]),
    ]) {
      assert.equal(format.readable(json), shown);
    }
  });

  const row = (executionId, ...messages) => ({
    executionId,
    truncated: false,
    timestamp: '2026-01-01T00:00:00.000Z',
    logs: messages.map(([timestamp, level, message]) => ({ timestamp, level, message })),
  });

  test('lines of the list and the stream are one, in order', () => {
    const first = row('a', ['2026-01-01T00:00:00.002Z', 'info', 'two'], ['2026-01-01T00:00:00.002Z', 'warn', 'three']);
    const second = row('b', ['2026-01-01T00:00:00.001Z', 'error', 'one']);
    const lines = logs.merge(logs.merge([], [first]), [first, second]);
    assert.deepEqual(lines.map(({ message }) => message), ['one', 'two', 'three']);
    assert.equal(logs.merge(lines, [first]), lines);
  });

  test('lines are bounded and the newest stay', () => {
    const many = Array.from({ length: logs.MAX_LINES + 5 }, (_, n) => row(`c${n}`, [new Date(n).toISOString(), 'info', String(n)]));
    const lines = logs.merge([], many);
    assert.equal(lines.length, logs.MAX_LINES);
    assert.equal(lines.at(-1).message, String(logs.MAX_LINES + 4));
    // And so are rows that wait while the page is paused.
    const long = 'x'.repeat(logs.MAX_CHARACTERS / 4);
    const large = Array.from({ length: 6 }, (_, n) => row(`l${n}`, [new Date(n).toISOString(), 'info', long]));
    assert.deepEqual(logs.merge([], large).map((line) => line.executionId), ['l2', 'l3', 'l4', 'l5']);
    assert.deepEqual(logs.waiting([], large).map((row) => row.executionId), ['l2', 'l3', 'l4', 'l5']);
    const one = row('one', [new Date(9).toISOString(), 'info', long.repeat(5)]);
    assert.deepEqual([logs.merge([], [...large, one]).length, logs.waiting(large, [one]).length], [1, 1]);

    const held = logs.waiting(many, many.slice(0, 3));
    assert.deepEqual([held.length, held.at(-1)], [logs.MAX_LINES, many[2]]);
  });

  test('filters', () => {
    const line = { level: 'warn', message: 'Slow Query', executionId: 'abc' };
    assert.ok(logs.isCall('01890a5d-ac96-774b-bcce-b302099a8057') && !logs.isCall('01890a5d') && !logs.isCall('second'));
    const matches = (text, ...levels) => logs.matches(line, { text, levels: new Set(levels) });
    assert.ok(matches('') && matches('slow') && matches('abc') && matches('', 'warn', 'error'));
    assert.ok(!matches('fast') && !matches('slow', 'info'));
  });

  test('what was built may be served', () => {
    const served = ['pending', 'deploying', 'active', 'failed', 'superseded'].filter((status) => versions.canServe({ active: false, status }));
    assert.deepEqual(served, ['active', 'superseded']);
    assert.ok(!versions.canServe({ active: true, status: 'active' }));
  });

  test('an answer that is cut off is no answer', async (t) => {
    t.mock.method(globalThis, 'fetch', async () => new Response('{"functions":[', { headers: { 'content-type': 'application/json' } }));
    await assert.rejects(api.api.functions(), ({ code, message }) => code === 'unreachable' && message.includes('whole'));
  });

  test('drafts are kept, and the browser asks while there are some', (t) => {
    const asked = new Set();
    Object.assign(globalThis, { addEventListener: (_, ask) => asked.add(ask), removeEventListener: (_, ask) => asked.delete(ask) });
    t.after(() => {
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
    });
    assert.equal(drafts.draft('a'), undefined);
    drafts.keep('a', { text: 1 });
    drafts.keep('b', { text: 2 });
    drafts.keep('b', { text: 3 });
    assert.deepEqual([drafts.draft('a'), drafts.draft('b'), asked.size], [{ text: 1 }, { text: 3 }, 1]);
    drafts.keep('a', undefined);
    assert.deepEqual([drafts.draft('a'), asked.size], [undefined, 1]);
    drafts.keep('c', { text: 4 });
    drafts.discardAll();
    assert.deepEqual([drafts.draft('b'), drafts.draft('c'), asked.size], [undefined, undefined, 0]);
  });

  test('a new function has a name of its own', () => {
    const free = (...taken) => templates.freeName('hello', new Set(taken));
    assert.deepEqual([free(), free('other'), free('hello'), free('hello', 'hello-2')], ['hello', 'hello', 'hello-2', 'hello-3']);
  });

  test('a change of the environment that no call sees is told', () => {
    for (const status of ['pending', 'deploying', 'active', undefined]) assert.equal(versions.unseen({ version: 3, status }), undefined);
    assert.match(versions.unseen({ version: 3, status: 'superseded' }), /^Version 3 has the change but is not served/);
    assert.match(versions.unseen({ version: 3, status: 'failed', deployError: { code: 'startup_error', message: 'no' } }), /does not load with that: no/);
  });

  test('a version that is not served is not said to be live', () => {
    assert.equal(versions.stage(3, 'active', 3), 'Version 3 is live');
    assert.equal(versions.stage(3, 'active', 4), 'Version 3 is not served: version 4 came first');
    assert.equal(versions.stage(3, 'active', 1), 'Version 3 is not served: a rollback to version 1 came first');
    assert.deepEqual(['pending', 'failed'].map((status) => versions.stage(3, status, 2)), ['Deploying version 3', 'The deploy failed']);
  });

  test('a deploy is looked at until it has ended, and not again', () => {
    const { refetchInterval, staleTime } = store.deployOf('id', 3);
    const looked = (status) => [refetchInterval, staleTime].map((of) => of({ state: { data: status && { status } } }));
    assert.deepEqual(looked('deploying'), [400, 0]);
    assert.deepEqual(looked(undefined), [5_000, 0]);
    for (const ended of ['active', 'failed']) assert.deepEqual(looked(ended), [false, Infinity]);
  });

  test('a pasted .env', () => {
    assert.deepEqual(dotenv.parse('# c\nA=1\nexport B="x\\ny"\nC=\'$k\' \nD=v # note\n'), { A: '1', B: 'x\ny', C: '$k', D: 'v' });
    const comments = 'A=1\t# c\nB= # c\nC=#1\nD=a#b \t # c # d\nexport\tE=x \u00a0# c';
    assert.deepEqual(dotenv.parse(comments), { A: '1', B: '', C: '#1', D: 'a#b', E: 'x' });
    for (const text of ['', 'API_TOKEN', 'a b=1', '=x', 'DATABASE']) assert.equal(dotenv.parse(text), null, text);
    const quoted = String.raw`A="s3cret" # prod
      B='it "is"'#c
      C="C:\\new"
      D="say \"hi\" \d # no comment"
      E=""
      F='\n'
      G=it's`;
    assert.deepEqual(dotenv.parse(quoted), { A: 's3cret', B: 'it "is"', C: 'C:\\new', D: 'say "hi" \\d # no comment', E: '', F: '\\n', G: "it's" });
    for (const [line, says] of [
      ['B="secret', 'is not closed'], [String.raw`B="secret\"`, 'is not closed'], ["B='", 'is not closed'],
      ['B="secret" secret', 'more than a comment'], ["B='secret''secret'", 'more than a comment'],
    ]) {
      assert.throws(() => dotenv.parse(`A=1\n${line}`), ({ message }) => message.startsWith('Line 2 ') && message.includes(says) && !message.includes('secret'), line);
    }
  });
});
