import { Lock, Trash2 } from 'lucide-preact';
import { useState } from 'preact/hooks';
import { api } from '../../lib/api';
import { NAME, parse } from '../../lib/dotenv';
import { useEnv, useRefresh } from '../../lib/store';
import { unseen } from '../../lib/versions';
import { Button, Card, Confirm, Empty, Failure, Field, IconButton, Loading, fieldErrors } from '../../ui/parts';
import type { TabProps } from '../function';

export function Env({ fn }: TabProps) {
  const { data, error, refetch } = useEnv(fn.id);
  const refresh = useRefresh();
  const [name, setName] = useState('');
  const [value, setValue] = useState('');
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<unknown>();
  const [saved, setSaved] = useState('');
  const [removing, setRemoving] = useState<string>();

  const patch = async (change: { set?: Record<string, string>; unset?: string[] }) => {
    const problem = unseen(await api.patchEnv(fn.id, change));
    if (!problem) return;
    // There is another version all the same, and calls may go elsewhere than before.
    await refresh(fn.id);
    throw new Error(problem);
  };
  const set = async (variables: Record<string, string>) => {
    setBusy(true);
    setFailed(undefined);
    setSaved('');
    try {
      await patch({ set: variables });
      setSaved(Object.keys(variables).join(', '));
      setName('');
      setValue('');
      await refresh(fn.id);
    } catch (error) {
      setFailed(error);
    } finally {
      setBusy(false);
    }
  };
  const onPaste = (event: ClipboardEvent) => {
    try {
      const variables = parse(event.clipboardData?.getData('text') ?? '');
      if (!variables) return;
      event.preventDefault();
      void set(variables);
    } catch (error) {
      event.preventDefault();
      setFailed(error);
    }
  };
  if (error && !data) return <Failure error={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const names = [...data.names].sort();
  const wrongName = name && !NAME.test(name) ? 'Letters, digits and _; not beginning with a digit.' : fieldErrors(failed)['set'];
  return (
    <div class="stack">
      <Card title="Set a variable">
        <form class="env-form" onSubmit={(event) => { event.preventDefault(); if (NAME.test(name)) void set({ [name]: value }); }}>
          <Field label="Name" value={name} class="mono" placeholder="DATABASE_URL" spellcheck={false} autocapitalize="characters" autocomplete="off" required error={wrongName} onPaste={onPaste} onInput={(e) => setName(e.currentTarget.value.trim())} />
          <Field label="Value" value={value} class="mono" type="password" autocomplete="new-password" onInput={(e) => setValue(e.currentTarget.value)} />
          <Button type="submit" tone="primary" busy={busy} disabled={!name}>Save</Button>
        </form>
        <p class="hint">Paste the text of a <span class="mono">.env</span> file into the name to set all of it. A change makes a new version, without a build.</p>
        {!wrongName && <Failure error={failed} />}
        <p class="visually-hidden" role="status">{saved && `Saved ${saved}`}</p>
      </Card>
      {names.length === 0
        ? (
          <Empty icon={Lock} title="No variables yet">
            <p>Configuration and secrets reach the function as <span class="mono">process.env.NAME</span>. They are encrypted where they are stored and are never shown again, not even to you.</p>
          </Empty>
        )
        : (
          <Card title="Variables" class="flush">
            <table class="rows">
              <thead><tr><th>Name</th><th>Value</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
              <tbody>
                {names.map((one) => (
                  <tr key={one}>
                    <td class="main-cell mono">{one}</td>
                    <td class="muted" data-label="Value"><span aria-hidden="true">••••••••</span><span class="visually-hidden">hidden</span></td>
                    <td class="row-actions">
                      <Button tone="quiet" onClick={() => { setName(one); document.querySelector<HTMLInputElement>('.env-form input[type=password]')?.focus(); }} aria-label={`Replace ${one}`}>Replace</Button>
                      <IconButton icon={Trash2} label={`Remove ${one}`} onClick={() => setRemoving(one)} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Card>
        )}
      <Confirm
        title={`Remove ${removing}?`} action="Remove" open={removing !== undefined} onClose={() => setRemoving(undefined)}
        run={async () => {
          if (removing) await patch({ unset: [removing] });
          await refresh(fn.id);
        }}
      >
        <p>The function no longer finds it from the next version on, which is live in a moment.</p>
      </Confirm>
    </div>
  );
}
