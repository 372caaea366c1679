// Calls the function through the API, which shows the session to the gateway: no credential
// reaches this page, and what the function answers is text here, never a document.

import { Play, X } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Link } from 'wouter-preact';
import { type Fn, type Invocation, type LogRow, api } from '../../lib/api';
import { bytes, clock, milliseconds, readable } from '../../lib/format';
import { mod, useKeyboard } from '../../lib/keyboard';
import { linesOf } from '../../lib/logs';
import { useQueryClient } from '../../lib/store';
import { Button, Card, CopyButton, Failure, Kbd, Segmented } from '../../ui/parts';

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;

const header = (answer: Invocation, name: string) => answer.headers.find(([other]) => other === name)?.[1];

/** `name: value` lines. */
function headersOf(text: string): Record<string, string> {
  const entries = text.split('\n').map((line) => line.trim()).filter(Boolean).map((line) => {
    const at = line.indexOf(':');
    if (at < 1) throw new Error(`Write headers as “name: value”; “${line}” is not.`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
  return Object.fromEntries(entries);
}

function pretty(answer: Invocation): string {
  if (answer.bodyEncoding === 'base64') return '';
  return /json/.test(header(answer, 'content-type') ?? '') ? readable(answer.body) : answer.body;
}

export function Invoke({ fn }: { fn: Fn }) {
  const queries = useQueryClient();
  const [method, setMethod] = useState<string>('GET');
  const [path, setPath] = useState('/');
  const [headers, setHeaders] = useState('');
  const [body, setBody] = useState('{\n  "name": "Grace"\n}');
  const [part, setPart] = useState<'body' | 'headers'>('body');
  const [calling, setCalling] = useState<AbortController>();
  const [answer, setAnswer] = useState<Invocation>();
  const [error, setError] = useState<unknown>();
  const hasBody = method !== 'GET';

  const send = async () => {
    if (calling || !fn.activeVersion) return;
    const abort = new AbortController();
    setCalling(abort);
    setError(undefined);
    try {
      const all = headersOf(headers);
      if (hasBody && body && !Object.keys(all).some((name) => name.toLowerCase() === 'content-type')) all['content-type'] = 'application/json';
      setAnswer(await api.invoke(fn.id, { method, path, headers: all, ...(hasBody && { body }) }, abort.signal));
    } catch (failed) {
      setAnswer(undefined);
      if (!abort.signal.aborted) setError(failed);
    } finally {
      setCalling(undefined);
      void queries.invalidateQueries({ queryKey: ['series'] });
    }
  };
  useKeyboard({ 'mod+enter': () => void send() });
  useEffect(() => () => calling?.abort(), [calling]);

  return (
    <Card title="Invoke" action={<span class="muted keys"><Kbd>{mod}</Kbd><Kbd>↵</Kbd></span>} class="invoke">
      <form class="request" onSubmit={(event) => { event.preventDefault(); void send(); }}>
        <select aria-label="Method" value={method} onChange={(event) => setMethod(event.currentTarget.value)}>
          {METHODS.map((one) => <option key={one}>{one}</option>)}
        </select>
        <input class="mono" aria-label="Path and query" value={path} placeholder="/?name=Grace" spellcheck={false} autocapitalize="none" onInput={(event) => setPath(event.currentTarget.value)} />
        {calling
          ? <Button icon={X} onClick={() => calling.abort()}>Cancel</Button>
          : <Button type="submit" tone="primary" icon={Play} disabled={!fn.activeVersion} title={fn.activeVersion ? undefined : 'No version is live yet'}>Send</Button>}
      </form>
      <Segmented label="Part of the request" options={[['body', 'Body'], ['headers', 'Headers']]} value={part} onChange={setPart} />
      {part === 'headers'
        ? <textarea class="mono" rows={4} aria-label="Headers, one per line" placeholder="accept: text/plain" value={headers} spellcheck={false} onInput={(event) => setHeaders(event.currentTarget.value)} />
        : hasBody
          ? <textarea class="mono" rows={4} aria-label="Request body" value={body} spellcheck={false} onInput={(event) => setBody(event.currentTarget.value)} />
          : <p class="hint">GET has no body. The query goes into the path: <span class="mono">/?name=Grace</span></p>}
      <div aria-live="polite" class="stack tight">
        {calling && <p class="muted"><span class="spinner" aria-hidden="true" /> Calling…</p>}
        <Failure error={error} />
        {answer && !calling && <Answer fn={fn} answer={answer} />}
      </div>
    </Card>
  );
}

function Answer({ fn, answer }: { fn: Fn; answer: Invocation }) {
  const [shown, setShown] = useState<'body' | 'headers'>('body');
  const execution = header(answer, 'x-cloudserve-execution-id');
  const text = pretty(answer);
  const cold = header(answer, 'x-cloudserve-cold') === '1';
  const tone = answer.status < 300 ? 'good' : answer.status < 500 ? 'fair' : 'bad';
  const size = answer.bodyEncoding === 'base64' ? Math.floor(answer.body.length * 0.75) : new Blob([answer.body]).size;
  return (
    <div class="answer-box">
      <p class="answer-line">
        <span class={`code ${tone}`}>{answer.status}</span>
        <span class="num">{milliseconds(answer.durationMs)}</span>
        <span class={`badge ${cold ? 'cold' : ''}`}>{cold ? 'cold' : 'warm'}</span>
        <span class="muted">{bytes(size)}</span>
        <CopyButton text={text} label="Copy the answer" />
      </p>
      <Segmented label="Part of the answer" options={[['body', 'Answer'], ['headers', 'Headers']]} value={shown} onChange={setShown} />
      {shown === 'headers'
        ? <pre class="output" tabIndex={0} aria-label="Headers of the answer">{answer.headers.map(([name, value]) => `${name}: ${value}`).join('\n')}</pre>
        : answer.bodyEncoding === 'base64'
          ? <p class="hint">The answer is not text.</p>
          : text === '' ? <p class="hint">The answer is empty.</p> : <pre class="output" tabIndex={0} aria-label="Body of the answer">{text}</pre>}
      {answer.truncated && <p class="hint">Longer than is shown here. Call the address itself to get all of it.</p>}
      {execution && <CallLog fn={fn} execution={execution} />}
    </div>
  );
}

/** Log lines are stored in batches, a moment after the answer. */
const LOOKS = 8;
const LOOK_EVERY_MS = 250;

function CallLog({ fn, execution }: { fn: Fn; execution: string }) {
  const [row, setRow] = useState<LogRow>();
  const current = useRef(execution);
  current.current = execution;
  useEffect(() => {
    setRow(undefined);
    let looks = 0;
    const timer = setInterval(async () => {
      looks += 1;
      if (looks >= LOOKS) clearInterval(timer);
      const { logs } = await api.logs(fn.id, { executionId: execution }).catch(() => ({ logs: [] }));
      if (logs[0] && current.current === execution) {
        clearInterval(timer);
        setRow(logs[0]);
      }
    }, LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [fn.id, execution]);
  if (!row) return null;
  return (
    <div>
      <p class="over">Log of this call</p>
      <ul class="log-lines small">
        {linesOf(row).map((line) => (
          <li key={line.key} class={`log ${line.level}`}><time>{clock(line.timestamp)}</time><span class="log-message">{line.message}</span></li>
        ))}
      </ul>
      <Link href={`/functions/${fn.id}/logs?call=${execution}`} class="small">Open in logs</Link>
    </div>
  );
}
