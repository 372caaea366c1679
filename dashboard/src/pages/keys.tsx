import { KeyRound, Plus } from 'lucide-preact';
import { useState } from 'preact/hooks';
import { type ApiKey, type Fn, type Scope, api } from '../lib/api';
import { day } from '../lib/format';
import { useFunctions, useKeys, useQueryClient } from '../lib/store';
import { Trail } from '../ui/trail';
import { Button, Card, Confirm, CopyButton, Dialog, Empty, Failure, Field, Loading, PageHead, Segmented, Time, fieldErrors } from '../ui/parts';

const SCOPES: readonly [Scope, string][] = [
  ['invoke', 'Call functions'],
  ['deploy', 'Deploy, change and delete functions'],
  ['read', 'Read functions, logs and usage'],
];

const EXPIRIES: readonly [string, number | null][] = [['30 days', 30], ['90 days', 90], ['1 year', 365], ['Never', null]];

const REACHES = [['all', 'All'], ['chosen', 'Chosen ones']] as const;
/** The API takes no more. */
const MOST_FUNCTIONS = 100;

function toggled<T>(set: ReadonlySet<T>, item: T): ReadonlySet<T> {
  const next = new Set(set);
  if (!next.delete(item)) next.add(item);
  return next;
}

export function Keys() {
  const { data, error, refetch } = useKeys();
  const functions = useFunctions().data;
  const nameOf = (id: string) => (functions ? (functions.find((fn) => fn.id === id)?.name ?? 'a deleted function') : '…');
  const queries = useQueryClient();
  const [creating, setCreating] = useState(false);
  const [revoking, setRevoking] = useState<ApiKey>();
  const changed = () => Promise.all(['keys', 'audit'].map((of) => queries.invalidateQueries({ queryKey: [of] })));
  const create = <Button tone="primary" icon={Plus} onClick={() => setCreating(true)}>Create key</Button>;
  return (
    <>
      <PageHead title="API keys" sub="For scripts and programs that call or deploy your functions.">{data && data.length > 0 && create}</PageHead>
      {error && !data ? <Failure error={error} retry={() => void refetch()} />
        : !data ? <Loading />
          : data.length === 0
            ? (
              <Empty icon={KeyRound} title="No keys yet">
                <p>A key stands for you where nobody can sign in: in CI, in another server, in <span class="mono">curl</span>. Give it only the scopes it needs; send it as <span class="mono">x-api-key</span>.</p>
                {create}
              </Empty>
            )
            : (
              <Card class="flush">
                <table class="rows">
                  <thead><tr><th>Name</th><th>Scopes</th><th>Functions</th><th class="num">Last used</th><th class="num">Expires</th><th class="num">Created</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
                  <tbody>
                    {data.map((key) => (
                      <tr key={key.id}>
                        <td class="main-cell"><strong>{key.name}</strong><span class="muted mono small">{key.prefix}…</span></td>
                        <td><span class="chips">{key.scopes.map((scope) => <span key={scope} class="badge">{scope}</span>)}</span></td>
                        <td class="muted" data-label="Functions">{key.functions.length === 0 ? 'all' : key.functions.map(nameOf).join(', ')}</td>
                        <td class="num muted" data-label="Last used">{key.lastUsedAt ? <Time at={key.lastUsedAt} /> : '–'}</td>
                        <td class="num muted" data-label="Expires">{key.expiresAt ? new Date(key.expiresAt) < new Date() ? <span class="bad-text">expired</span> : day(key.expiresAt) : 'never'}</td>
                        <td class="num muted" data-label="Created"><Time at={key.createdAt} /></td>
                        <td class="row-actions"><Button onClick={() => setRevoking(key)} aria-label={`Revoke ${key.name}`}>Revoke</Button></td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Card>
            )}
      <Trail nameOf={nameOf} keys={data} />
      <Create open={creating} functions={functions ?? []} onClose={() => setCreating(false)} onCreated={changed} />
      <Confirm
        title={`Revoke ${revoking?.name}?`} action="Revoke" open={revoking !== undefined} onClose={() => setRevoking(undefined)}
        run={async () => {
          if (revoking) await api.revokeKey(revoking.id);
          await changed();
        }}
      >
        <p>Whatever uses it is refused from now on. A revoked key cannot be brought back.</p>
      </Confirm>
    </>
  );
}

function Create({ open, functions, onClose, onCreated }: { open: boolean; functions: readonly Fn[]; onClose: () => void; onCreated: () => unknown }) {
  const [scopes, setScopes] = useState<ReadonlySet<Scope>>(new Set(['invoke']));
  const [reach, setReach] = useState<'all' | 'chosen'>('all');
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [made, setMade] = useState<ApiKey>();
  const close = () => {
    // The key is nowhere but here.
    setMade(undefined);
    setError(undefined);
    setReach('all');
    setChosen(new Set());
    onClose();
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const days = Number(form.get('days'));
    setBusy(true);
    setError(undefined);
    try {
      setMade(await api.createKey({
        name: String(form.get('name')).trim(),
        scopes: [...scopes],
        functions: reach === 'all' ? [] : [...chosen],
        ...(days > 0 && { expiresAt: new Date(Date.now() + days * 86_400_000).toISOString() }),
      }));
      onCreated();
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const isComplete = scopes.size > 0 && (reach === 'all' || (chosen.size > 0 && chosen.size <= MOST_FUNCTIONS));
  const wrong = fieldErrors(error);
  return (
    <Dialog title={made ? 'Copy your key now' : 'Create an API key'} open={open} onClose={close} stays={made !== undefined}>
      {made?.key
        ? (
          <div class="stack">
            <p>This is the only time it is shown. Keep it where you keep passwords.</p>
            <p class="command"><code class="new-key">{made.key}</code><CopyButton text={made.key} label="Copy the key" /></p>
            <div class="dialog-actions"><Button tone="primary" onClick={close}>Done</Button></div>
          </div>
        )
        : (
          <form class="stack" onSubmit={submit}>
            <Field label="Name" name="name" required autoFocus autocomplete="off" placeholder="ci" hint="What uses it, so that you know what stops when you revoke it." error={wrong['name']} />
            <fieldset>
              <legend>Scopes</legend>
              {SCOPES.map(([scope, what]) => (
                <label key={scope} class="check">
                  <input type="checkbox" checked={scopes.has(scope)} onChange={() => setScopes(toggled(scopes, scope))} />
                  <span><strong>{scope}</strong> <span class="muted">{what}</span></span>
                </label>
              ))}
            </fieldset>
            {functions.length > 0 && (
              <fieldset class="stack tight">
                <legend>Functions</legend>
                <Segmented label="Functions it is for" options={REACHES} value={reach} onChange={setReach} />
                {reach === 'chosen' && (
                  <div class="choices" role="group" aria-label="Chosen functions">
                    {functions.map(({ id, name }) => (
                      <label key={id} class="check">
                        <input type="checkbox" checked={chosen.has(id)} onChange={() => setChosen(toggled(chosen, id))} />
                        <span class="mono">{name}</span>
                      </label>
                    ))}
                  </div>
                )}
                <p class="hint">{reach === 'all' ? 'Those to come as well.' : `At most ${MOST_FUNCTIONS}; it is refused for every other one.`}</p>
              </fieldset>
            )}
            <div class="field">
              <label for="key-days">Expires</label>
              <select id="key-days" name="days">{EXPIRIES.map(([text, days]) => <option key={text} value={days ?? 0}>{text}</option>)}</select>
            </div>
            {wrong['functions'] && <p class="field-error">{wrong['functions']}</p>}
            {!wrong['name'] && !wrong['functions'] && <Failure error={error} />}
            <div class="dialog-actions">
              <Button onClick={close}>Cancel</Button>
              <Button type="submit" tone="primary" busy={busy} disabled={!isComplete}>Create</Button>
            </div>
          </form>
        )}
    </Dialog>
  );
}
