import { Globe, Lock } from 'lucide-preact';
import { Link } from 'wouter-preact';
import { ApiError, type FnWithSource } from '../lib/api';
import { useFunction } from '../lib/store';
import { CopyButton, Failure, Loading, Status, useTitle } from '../ui/parts';
import { Code } from './function/code';
import { Env } from './function/env';
import { LogView } from './function/logs';
import { Overview } from './function/overview';
import { Settings } from './function/settings';
import { Versions } from './function/versions';

const TABS = [
  ['overview', 'Overview', Overview],
  ['code', 'Code', Code],
  ['logs', 'Logs', LogView],
  ['versions', 'Versions', Versions],
  ['env', 'Environment', Env],
  ['settings', 'Settings', Settings],
] as const;

export interface TabProps {
  fn: FnWithSource;
}

export function FunctionPage({ id, tab }: { id: string; tab: string }) {
  const { data: fn, error, refetch } = useFunction(id);
  useTitle(`${fn?.name ?? 'Function'}: ${TABS.find(([name]) => name === tab)?.[1] ?? 'Overview'}`);
  if (error instanceof ApiError && error.status === 404) {
    return <div class="empty"><h2>There is no such function</h2><p>It may have been deleted. <Link href="/">All functions</Link></p></div>;
  }
  if (error && !fn) return <Failure error={error} retry={() => void refetch()} />;
  if (!fn) return <Loading rows={8} />;
  const Shown = TABS.find(([name]) => name === tab)?.[2] ?? Overview;
  const url = fn.url ?? fn.endpoint;
  const Seen = fn.visibility === 'public' ? Globe : Lock;
  return (
    <>
      <header class="fn-head">
        <div class="fn-title">
          <h1 class="mono">{fn.name}</h1>
          <Status status={fn.status} activeVersion={fn.activeVersion} />
          {fn.status === 'active' && <span class="badge">v{fn.activeVersion}</span>}
        </div>
        <p class="fn-url">
          <Seen size={13} aria-label={fn.visibility} />
          <span class="mono clip">{url}</span>
          <CopyButton text={url} label="Copy the address" />
        </p>
      </header>
      <nav class="tabs" aria-label={`Function ${fn.name}`}>
        {TABS.map(([name, title]) => (
          <Link key={name} href={`/functions/${id}${name === 'overview' ? '' : `/${name}`}`} aria-current={name === tab ? 'page' : undefined}>{title}</Link>
        ))}
      </nav>
      {fn.deployError && tab !== 'code' && (
        <div class="notice bad">
          <div>
            <p><strong>Version {fn.version} did not deploy.</strong> {fn.activeVersion ? `Version ${fn.activeVersion} goes on answering.` : ''}</p>
            <pre>{fn.deployError.message}</pre>
          </div>
        </div>
      )}
      <Shown fn={fn} />
    </>
  );
}
