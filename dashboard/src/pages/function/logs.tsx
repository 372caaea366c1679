import { Download, Pause, Play, ScrollText } from 'lucide-preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { Link, useSearch } from 'wouter-preact';
import { type LogLevel, type LogRow, api } from '../../lib/api';
import { clock, full } from '../../lib/format';
import { useKeyboard } from '../../lib/keyboard';
import { type Line, isCall, matches, merge, waiting } from '../../lib/logs';
import { messageOf, useQuery } from '../../lib/store';
import { Button, Card, Empty, Failure, Loading } from '../../ui/parts';
import type { TabProps } from '../function';

const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];
/** Rows read before the stream goes on. */
const EARLIER = 200;
const RECONNECT_MS = 3_000;

type Link_ = 'connecting' | 'live' | 'lost';

/** What was logged and what is logged now. The list comes after the stream has begun, so that
 * nothing falls between the two; rows that both give are one. */
function useLog(id: string, paused: boolean) {
  const [lines, setLines] = useState<Line[]>();
  const [error, setError] = useState<unknown>();
  const [state, setState] = useState<Link_>('connecting');
  const held = useRef<LogRow[]>([]);
  const frame = useRef<number>();
  const isPaused = useRef(paused);
  isPaused.current = paused;

  const show = () => {
    frame.current = undefined as never;
    if (isPaused.current || held.current.length === 0) return;
    const rows = held.current;
    held.current = [];
    setLines((old) => merge(old ?? [], rows));
  };
  /** Shows rows, as many as come until the next frame at once; later, while paused. */
  const hold = (rows: readonly LogRow[]) => {
    held.current = waiting(held.current, rows);
    if (!isPaused.current) frame.current ??= requestAnimationFrame(show);
  };
  useEffect(show, [paused]);

  useEffect(() => {
    let gone = false;
    let isFirst = true;
    const load = async () => {
      try {
        const { logs } = await api.logs(id, { limit: EARLIER });
        if (gone) return;
        if (isFirst) setLines((old) => merge(old ?? [], logs));
        else hold(logs);
        isFirst = false;
      } catch (failed) {
        if (!gone) setError(failed);
      }
    };
    let source: EventSource | undefined;
    let retry: ReturnType<typeof setTimeout> | undefined;
    const take = (event: MessageEvent<string>) => {
      const row = JSON.parse(event.data) as LogRow;
      if (Array.isArray(row.logs)) hold([row]);
    };
    const connect = () => {
      source = new EventSource(api.logStream(id));
      source.addEventListener('message', take);
      source.addEventListener('open', () => {
        setState('live');
        // Also after a break: what was missed is in the list.
        void load();
      });
      source.addEventListener('error', () => {
        setState('lost');
        void load();
        // Browsers go on by themselves after a broken connection, but not after a refusal.
        if (source?.readyState === EventSource.CLOSED) retry = setTimeout(connect, RECONNECT_MS);
      });
    };
    connect();
    return () => {
      gone = true;
      clearTimeout(retry);
      if (frame.current !== undefined) cancelAnimationFrame(frame.current);
      frame.current = undefined as never;
      source?.close();
    };
  }, [id]);
  return { lines, error, state };
}

function download(name: string, lines: readonly Line[]): void {
  const text = lines.map(({ key: _, ...line }) => JSON.stringify(line)).join('\n');
  const url = URL.createObjectURL(new Blob([text, '\n'], { type: 'application/x-ndjson' }));
  const link = Object.assign(document.createElement('a'), { href: url, download: `${name}.ndjson` });
  link.click();
  URL.revokeObjectURL(url);
}

export function LogView({ fn }: TabProps) {
  const [paused, setPaused] = useState(false);
  const [levels, setLevels] = useState<ReadonlySet<LogLevel>>(new Set());
  const search = useSearch();
  const [text, setText] = useState(() => new URLSearchParams(search).get('call') ?? '');
  const { lines, error, state } = useLog(fn.id, paused);
  const field = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const atEnd = useRef(true);
  useKeyboard({ '/': () => field.current?.focus(), p: () => setPaused((value) => !value) });

  // A call that is asked for by its id may be older than what is read of the log.
  const call = useQuery({
    queryKey: ['call', fn.id, text],
    queryFn: async () => (await api.logs(fn.id, { executionId: text })).logs,
    enabled: isCall(text),
  });
  const shown = useMemo(() => {
    const known = (lines ?? []).filter((line) => matches(line, { text, levels: new Set() }));
    return merge(known, call.data ?? []).filter((line) => matches(line, { text, levels }));
  }, [lines, call.data, text, levels]);
  // Who has scrolled up reads; who is at the end follows.
  useEffect(() => {
    if (atEnd.current) list.current?.scrollTo({ top: list.current.scrollHeight });
  }, [shown]);

  const toggle = (level: LogLevel) => {
    const next = new Set(levels);
    if (!next.delete(level)) next.add(level);
    setLevels(next);
  };
  if (error && !lines) return <Failure error={error} />;
  if (!lines) return <Loading rows={8} />;
  return (
    <Card class="flush log-card">
      <div class="log-bar">
        <input ref={field} type="search" class="search" aria-label="Filter by text or call" placeholder="Filter by text or call  /" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <div class="segmented" role="group" aria-label="Levels">
          {LEVELS.map((level) => (
            <button type="button" key={level} class={`level ${level}`} aria-pressed={levels.has(level)} onClick={() => toggle(level)}>{level}</button>
          ))}
        </div>
        <span class="grow" />
        <span class={`live ${paused ? 'paused' : state}`} role="status">
          <span class="dot" aria-hidden="true" /> {paused ? 'Paused' : state === 'live' ? 'Live' : state === 'lost' ? 'Reconnecting' : 'Connecting'}
        </span>
        <Button icon={paused ? Play : Pause} onClick={() => setPaused(!paused)}>{paused ? 'Resume' : 'Pause'}</Button>
        <Button icon={Download} disabled={shown.length === 0} onClick={() => download(fn.name, shown)} aria-label="Download what is shown" />
      </div>
      {lines.length === 0 && !isCall(text)
        ? (
          <Empty icon={ScrollText} title="Nothing was logged yet">
            <p>What the function writes with <span class="mono">console.log</span>, <span class="mono">warn</span> and <span class="mono">error</span> appears here the moment a call has ended. <Link href={`/functions/${fn.id}/code`}>Invoke it</Link> and keep this page open.</p>
          </Empty>
        )
        : (
          <ul
            class="log-lines" ref={list} tabIndex={0} aria-label="Log lines, newest last"
            onScroll={({ currentTarget: at }) => { atEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < 24; }}
          >
            {shown.map((line) => (
              <li key={line.key} class={`log ${line.level}`}>
                <time dateTime={line.timestamp} title={full(line.timestamp)}>{clock(line.timestamp)}</time>
                <span class="log-level">{line.level}</span>
                <span class="log-message">{line.message}</span>
                <button type="button" class="log-call mono" title={`Only this call: ${line.executionId}`} aria-label={`${line.executionId.slice(-6)}: only the call ${line.executionId}`} onClick={() => setText(line.executionId)}>{line.executionId.slice(-6)}</button>
              </li>
            ))}
            {shown.length === 0 && <li class="muted none">{call.isFetching ? 'Looking for the call…' : call.error ? messageOf(call.error) : 'No line matches the filter.'}</li>}
          </ul>
        )}
    </Card>
  );
}
