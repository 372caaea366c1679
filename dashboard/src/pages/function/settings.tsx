import { useState } from 'preact/hooks';
import { useLocation } from 'wouter-preact';
import { type Visibility, api } from '../../lib/api';
import { keep } from '../../lib/drafts';
import { useRefresh } from '../../lib/store';
import { Button, Card, Confirm, Failure, Field, Segmented, fieldErrors } from '../../ui/parts';
import type { TabProps } from '../function';

const LIMITS = [
  ['timeoutMs', 'Timeout (ms)', 'A call is answered by then, one way or the other.'],
  ['memoryMb', 'Memory (MB)', 'Heap and array buffers of one of its workers, which runs a call at a time.'],
  ['concurrency', 'Concurrency', 'Calls that run at the same time; more wait.'],
] as const;

export function Settings({ fn }: TabProps) {
  const refresh = useRefresh();
  const [, go] = useLocation();
  const [deleting, setDeleting] = useState(false);
  const [busy, setBusy] = useState('');
  const [error, setError] = useState<unknown>();
  const [done, setDone] = useState('');

  const act = async (what: string, work: () => Promise<unknown>, said: string) => {
    setBusy(what);
    setError(undefined);
    setDone('');
    try {
      await work();
      setDone(said);
      await refresh(fn.id);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy('');
    }
  };
  const saveLimits = (event: Event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const limits = Object.fromEntries(LIMITS.map(([name]) => [name, Number(form.get(name))]));
    void act('limits', () => api.update(fn.id, { limits }), 'Saved. A new version with these limits is on its way.');
  };
  const wrong = fieldErrors(error);
  return (
    <div class="stack narrow">
      <Failure error={error} />
      {done && <div class="notice" role="status">{done}</div>}
      <Card title="Who may call it">
        <Segmented
          label="Who may call it" options={[['private', 'Private'], ['public', 'Public']]} value={fn.visibility}
          onChange={(visibility: Visibility) => void act('visibility', () => api.update(fn.id, { visibility }), visibility === 'public' ? 'Anybody may call it now.' : 'Only you and your keys may call it now.')}
        />
        <p class="hint">{fn.visibility === 'private' ? 'Only you and your API keys.' : 'Anybody who knows the address, without a key.'} A change holds at once.</p>
      </Card>
      <Card title="Limits">
        <form class="stack" onSubmit={saveLimits}>
          <div class="limit-fields">
            {LIMITS.map(([name, label, hint]) => (
              <Field key={name} label={label} name={name} type="number" min={1} step={1} required hint={hint} defaultValue={String(fn.limits[name])} error={wrong[`limits.${name}`]} />
            ))}
          </div>
          <div><Button type="submit" busy={busy === 'limits'}>Save limits</Button></div>
        </form>
      </Card>
      <Card title="Build again">
        <p class="hint">Resolves the version ranges of npm packages anew and deploys the same source.</p>
        <div><Button busy={busy === 'redeploy'} onClick={() => void act('redeploy', () => api.redeploy(fn.id, true), 'A new version is on its way.')}>Refresh packages and redeploy</Button></div>
      </Card>
      <Card title="Delete" class="danger-zone">
        <p class="hint">Removes the function, its versions and its logs. Its usage stays in your totals.</p>
        <div><Button tone="danger" onClick={() => setDeleting(true)}>Delete {fn.name}</Button></div>
      </Card>
      <Confirm
        title={`Delete ${fn.name}?`} action="Delete" typed={fn.name} open={deleting} onClose={() => setDeleting(false)}
        run={async () => {
          await api.remove(fn.id);
          keep(fn.id, undefined);
          await refresh();
          go('/');
        }}
      >
        <p>Its address answers 404 from then on. This cannot be undone.</p>
      </Confirm>
    </div>
  );
}
