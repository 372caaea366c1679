import { Link } from 'wouter-preact';
import { bytes, day, megabytes } from '../../lib/format';
import { Card, CopyButton, Time } from '../../ui/parts';
import { UsagePanel } from '../../ui/usage-panel';
import type { TabProps } from '../function';

export function Overview({ fn }: TabProps) {
  const url = fn.url ?? fn.endpoint;
  const curl = fn.visibility === 'public' ? `curl ${url}` : `curl -H "x-api-key: $CLOUDSERVE_API_KEY" ${url}`;
  const packages = Object.keys(fn.dependencies).length;
  const facts: [string, preact.ComponentChildren][] = [
    ['Live version', fn.activeVersion ? <Link href={`/functions/${fn.id}/versions`}>v{fn.activeVersion}</Link> : 'none yet'],
    ['Deployed', fn.deployedAt ? <Time at={fn.deployedAt} /> : '–'],
    ['Created', day(fn.createdAt)],
    ['Bundle', bytes(fn.bundleBytes)],
    ['Packages', packages === 0 ? 'none' : `${packages}${fn.dependencyCache === 'hit' ? ', shared tree' : ''}`],
    ['Handler', fn.handlerKind ?? '–'],
    ['Memory limit', megabytes(fn.limits.memoryMb)],
    ['Timeout', `${fn.limits.timeoutMs / 1_000} s`],
  ];
  return (
    <div class="stack">
      <Card title="Call it" action={fn.visibility === 'private' && <Link href="/keys" class="small">Get an API key</Link>}>
        <p class="command"><code class="clip">{curl}</code><CopyButton text={curl} label="Copy the command" /></p>
      </Card>
      <UsagePanel functionId={fn.id} empty={<p>No call in this time. <Link href={`/functions/${fn.id}/code`}>Invoke it</Link> and watch this chart move.</p>} />
      <Card title="Facts">
        <dl class="facts">
          {facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
        </dl>
      </Card>
    </div>
  );
}
