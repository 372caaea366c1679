import { LogOut } from 'lucide-preact';
import { useState } from 'preact/hooks';
import type { Allowance, User } from '../lib/api';
import { bytes, count, day, full } from '../lib/format';
import { signOut, useQuota } from '../lib/store';
import { type Theme, setTheme, theme } from '../lib/theme';
import { Button, Card, Failure, Loading, PageHead, Segmented } from '../ui/parts';

const THEMES = [['system', 'System'], ['light', 'Light'], ['dark', 'Dark']] as const;

export function Account({ user }: { user: User }) {
  const [chosen, setChosen] = useState<Theme>(theme);
  const [error, setError] = useState<unknown>();
  const choose = (next: Theme) => {
    setTheme(next);
    setChosen(next);
  };
  const facts: [string, string][] = [
    ['Name', user.fullName],
    ['User name', user.userName],
    ['Email', user.email],
    ['Since', day(user.createdAt)],
  ];
  return (
    <>
      <PageHead title="Account"><Button icon={LogOut} onClick={() => void signOut().catch(setError)}>Sign out</Button></PageHead>
      <div class="stack narrow">
        <Failure error={error} />
        <Card title="You">
          <dl class="facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd class="clip">{value}</dd></div>)}</dl>
        </Card>
        <Quotas />
        <Card title="Appearance"><Segmented label="Theme" options={THEMES} value={chosen} onChange={choose} /></Card>
      </div>
    </>
  );
}

function Quotas() {
  const { data, error, refetch } = useQuota();
  if (error) return <Card title="Quotas"><Failure error={error} retry={() => void refetch()} /></Card>;
  if (!data) return <Card title="Quotas"><Loading rows={3} /></Card>;
  return (
    <Card title="Quotas">
      <Meter name="Calls today" of={data.callsPerDay} shown={count} />
      <Meter name="GB-seconds this month" of={data.gbSecondsPerMonth} shown={(value) => value.toLocaleString('en', { maximumFractionDigits: 2 })} />
      <Meter name="API keys" of={data.apiKeys} shown={count} />
      {data.functions && <Meter name="Functions" of={data.functions} shown={count} />}
      {data.storedBytes && <Meter name="Stored versions" of={data.storedBytes} shown={bytes} />}
      <dl class="facts">
        <div><dt>Calls per second, each credential</dt><dd>{data.ratePerSecond.limit ?? 'no limit'}</dd></div>
        <div><dt>Calls in flight</dt><dd>{data.concurrency.limit ?? 'no limit'}</dd></div>
      </dl>
      <p class="hint">Over a limit, calls are answered 429 with the time to wait, and deploys 409. Whoever runs this installation can change limits.</p>
    </Card>
  );
}

function Meter({ name, of, shown }: { name: string; of: Allowance; shown: (value: number) => string }) {
  const share = of.limit ? Math.min(1, of.used / of.limit) : 0;
  return (
    <div class="quota">
      <p>
        <span>{name}</span>
        <span class="num"><strong>{shown(of.used)}</strong> <span class="muted">of {of.limit === null ? 'no limit' : shown(of.limit)}</span></span>
      </p>
      {of.limit !== null && (
        <div class={`meter ${share > 0.9 ? 'high' : ''}`} role="meter" aria-label={name} aria-valuemin={0} aria-valuemax={of.limit} aria-valuenow={of.used}>
          <i style={{ width: `${share * 100}%` }} />
        </div>
      )}
      {of.resetsAt && of.limit !== null && <p class="hint">Begins anew {full(of.resetsAt)}</p>}
    </div>
  );
}
