// What a deploy goes through, as it happens.

import { Check, Circle, X } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { DeployStatus } from '../lib/api';
import { bytes, milliseconds } from '../lib/format';
import { deployOf, useQuery } from '../lib/store';
import { stage } from '../lib/versions';

type State = 'done' | 'now' | 'next' | 'failed';

interface Props {
  id: string;
  version: number;
  onLive?: () => void;
  onFailed?: () => void;
}

export function DeploySteps({ id, version, onLive, onFailed }: Props) {
  const { data: current } = useQuery(deployOf(id, version));
  const [begun] = useState(() => performance.now());
  const [built, setBuilt] = useState<number>();
  const [now, setNow] = useState(begun);
  const ended = useRef(false);

  const status: DeployStatus = current?.status ?? 'pending';
  const over = status === 'active' || status === 'failed';
  useEffect(() => {
    if (status === 'deploying') setBuilt((at) => at ?? performance.now());
    if (!over) {
      const timer = setInterval(() => setNow(performance.now()), 100);
      return () => clearInterval(timer);
    }
    setNow(performance.now());
    if (!ended.current) {
      ended.current = true;
      (status === 'active' ? onLive : onFailed)?.();
    }
    return undefined;
  }, [status, over]);

  const isLive = status === 'active' && current?.activeVersion === version;
  const error = current?.deployError;
  const cache = current?.dependencyCache;
  const packages = Object.keys(current?.dependencies ?? {}).length;
  const buildState: State = status === 'failed' ? 'failed' : status === 'active' ? 'done' : status === 'deploying' ? 'now' : 'next';
  const steps: [string, State, string][] = [
    ['Source accepted', 'done', `version ${version}`],
    ['Waiting for a builder', status === 'pending' ? 'now' : 'done', built ? milliseconds(built - begun) : ''],
    [
      packages > 0 ? 'Packages, bundle, trial load' : 'Bundle and trial load',
      buildState,
      status === 'active'
        ? [bytes(current?.bundleBytes), cache && (cache === 'hit' ? 'packages from cache' : 'packages installed')].filter(Boolean).join(' · ')
        : status === 'failed' ? (error?.code ?? '') : '',
    ],
    ['Live', isLive ? 'done' : 'next', isLive ? milliseconds(now - begun) : ''],
  ];
  return (
    <section class="card steps" aria-label="Deploy">
      <header class="card-head">
        <h2>{stage(version, status, current?.activeVersion)}</h2>
        <span class="muted num">{milliseconds(now - begun)}</span>
      </header>
      <ol aria-live="polite">
        {steps.map(([name, state, detail]) => (
          <li key={name} class={state}>
            {state === 'done' ? <Check size={14} aria-label="done" /> : state === 'failed' ? <X size={14} aria-label="failed" /> : state === 'now' ? <span class="spinner" aria-label="in progress" role="img" /> : <Circle size={14} aria-label="to come" />}
            <span>{name}</span>
            <span class="muted">{detail}</span>
          </li>
        ))}
      </ol>
      {error && (
        <div class="notice bad" role="alert">
          <pre>{error.message}</pre>
          {current?.activeVersion && <p>Version {current.activeVersion} goes on answering.</p>}
        </div>
      )}
    </section>
  );
}
