import { Boxes, Globe, Lock, Plus } from 'lucide-preact';
import { useRef, useState } from 'preact/hooks';
import { Link, useLocation } from 'wouter-preact';
import type { Fn } from '../lib/api';
import { count, megabytes, milliseconds, percent } from '../lib/format';
import { useKeyboard } from '../lib/keyboard';
import { useFunctions } from '../lib/store';
import { TEMPLATES } from '../lib/templates';
import { Button, Card, Empty, Failure, Loading, PageHead, Status, Time } from '../ui/parts';

/** Below this many a search field is only in the way. */
const SEARCH_FROM = 5;

export function Functions() {
  const [, go] = useLocation();
  const { data, error, refetch } = useFunctions();
  const [text, setText] = useState('');
  const search = useRef<HTMLInputElement>(null);
  useKeyboard({ '/': () => search.current?.focus() });

  if (error && !data) return <Failure error={error} retry={() => void refetch()} />;
  if (!data) return <><PageHead title="Functions" /><Loading rows={6} /></>;
  if (data.length === 0) return <First />;
  const shown = data.filter((fn) => fn.name.includes(text.trim().toLowerCase()));
  return (
    <>
      <PageHead title="Functions" sub={`${count(data.length)} deployed`}>
        {data.length >= SEARCH_FROM && (
          <input ref={search} type="search" class="search" aria-label="Search functions" placeholder="Search  /" value={text} onInput={(e) => setText(e.currentTarget.value)} />
        )}
        <Button tone="primary" icon={Plus} onClick={() => go('/new')}>New function</Button>
      </PageHead>
      <Card class="flush">
        <table class="rows">
          <thead>
            <tr><th>Name</th><th>Status</th><th class="num">Calls</th><th class="num">Errors</th><th class="num">Latency</th><th class="num">Memory</th><th class="num">Updated</th></tr>
          </thead>
          <tbody>{shown.map((fn) => <Row key={fn.id} fn={fn} />)}</tbody>
        </table>
        {shown.length === 0 && <p class="muted none">No function has “{text}” in its name.</p>}
      </Card>
    </>
  );
}

function Row({ fn }: { fn: Fn }) {
  const { executed, errors, avgLatency, avgMemory } = fn.stats;
  const Seen = fn.visibility === 'public' ? Globe : Lock;
  return (
    <tr>
      <td class="main-cell">
        <Link href={`/functions/${fn.id}`} class="row-link mono">{fn.name}</Link>
        <span class="muted mono small"><Seen size={11} aria-label={fn.visibility} /> {fn.endpoint}</span>
      </td>
      <td><Status status={fn.status} activeVersion={fn.activeVersion} /></td>
      <td class="num" data-label="Calls">{count(executed)}</td>
      <td class={`num ${errors > 0 ? 'bad-text' : ''}`} data-label="Errors">{percent(errors, executed)}</td>
      <td class="num" data-label="Latency">{executed > 0 ? milliseconds(avgLatency) : '–'}</td>
      <td class="num" data-label="Memory">{executed > 0 ? megabytes(avgMemory) : '–'}</td>
      <td class="num muted" data-label="Updated"><Time at={fn.updatedAt} /></td>
    </tr>
  );
}

function First() {
  return (
    <>
      <PageHead title="Functions" />
      <Empty icon={Boxes} title="Deploy your first function">
        <p>A function is a file of JavaScript or TypeScript that exports a handler. Deploy it, and it answers HTTP requests at an address of its own. Begin with one of these; each works as it is.</p>
        <div class="templates">
          {TEMPLATES.map((template) => (
            <Link key={template.id} href={`/new?template=${template.id}`} class="template">
              <strong>{template.title}</strong>
              <span class="muted">{template.what}</span>
            </Link>
          ))}
        </div>
      </Empty>
    </>
  );
}
