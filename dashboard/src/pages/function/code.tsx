import { FilePlus } from 'lucide-preact';
import { useEffect, useState } from 'preact/hooks';
import { type DeployBody, type FnWithSource, api } from '../../lib/api';
import { draft, keep } from '../../lib/drafts';
import { mod } from '../../lib/keyboard';
import { useRefresh } from '../../lib/store';
import { Dependencies } from '../../editor/dependencies';
import { Editor } from '../../editor/lazy';
import { DeploySteps } from '../../ui/deploy-steps';
import { Button, Card, Confirm, Dialog, Failure, Field, Kbd } from '../../ui/parts';
import type { TabProps } from '../function';
import { Invoke } from './invoke';

const same = (a: Record<string, string>, b: Record<string, string>) => {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
};

const isCode = (path: string) => /\.[cm]?[jt]sx?$/.test(path) && !path.endsWith('.d.ts');

const listed = (files: Record<string, string>) => Object.keys(files).sort().join('\n');

interface Draft {
  /** What it began as: a deploy from elsewhere must not overwrite what is being written. */
  base: FnWithSource;
  files: Record<string, string>;
  dependencies: Record<string, string>;
  entry: string;
  path: string;
}

const begun = (fn: FnWithSource): Draft => ({ base: fn, files: fn.source.files, dependencies: fn.dependencies, entry: fn.source.entry, path: fn.source.entry });

export function Code({ fn }: TabProps) {
  const refresh = useRefresh();
  const [first] = useState(() => draft<Draft>(fn.id) ?? begun(fn));
  const [base, setBase] = useState(first.base);
  const [files, setFiles] = useState(first.files);
  const [dependencies, setDependencies] = useState(first.dependencies);
  const [entry, setEntry] = useState(first.entry);
  const [path, setPath] = useState(first.path);
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [deploying, setDeploying] = useState<number>();

  const changed = !same(files, base.source.files) || !same(dependencies, base.dependencies) || entry !== base.source.entry;
  const behind = fn.version > base.version;
  const reset = () => {
    setBase(fn);
    setFiles(fn.source.files);
    setDependencies(fn.dependencies);
    setEntry(fn.source.entry);
    setPath(fn.source.entry);
  };
  useEffect(() => {
    if (behind && !changed) reset();
  }, [behind, changed]);
  useEffect(() => {
    keep(fn.id, changed ? { base, files, dependencies, entry, path } : undefined);
  }, [changed, base, files, dependencies, entry, path]);

  const isBinary = (fn.source.binaryFiles?.length ?? 0) > 0;
  const deploy = async () => {
    // Files that are not text are not here: a deploy from here would be one without them.
    if (busy || !changed || isBinary) return;
    setBusy(true);
    setError(undefined);
    const body: DeployBody = { dependencies };
    if (!same(files, base.source.files)) body.files = files;
    // A new file with a usual name (`index.ts`) does not take the entry's place.
    if (listed(files) !== listed(base.source.files) || entry !== base.source.entry) body.entry = entry;
    try {
      const accepted = await api.update(fn.id, body);
      // Whoever has left this page meanwhile finds no draft of what is deployed.
      const kept = draft<Draft>(fn.id);
      if (kept?.files === files && kept.dependencies === dependencies && kept.entry === entry) keep(fn.id, undefined);
      setDeploying(accepted.version);
      setBase({ ...fn, version: accepted.version, source: { ...fn.source, files, entry }, dependencies });
      void refresh(fn.id);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const names = Object.keys(files).sort();
  return (
    <div class="split">
      <div class="stack">
        <div class="editor-bar">
          <div class="files" role="group" aria-label="Files">
            {names.map((name) => (
              <button type="button" key={name} class="file mono" title={name === entry ? 'Exports the handler' : undefined} aria-pressed={name === path} onClick={() => setPath(name)}>{name}</button>
            ))}
            <button type="button" class="file" aria-label="New file" title="New file" onClick={() => setAdding(true)}><FilePlus size={14} aria-hidden="true" /></button>
          </div>
          <div class="actions">
            {path !== entry && isCode(path) && <Button tone="quiet" onClick={() => setEntry(path)}>Make it the entry</Button>}
            {path !== entry && <Button tone="quiet" onClick={() => setRemoving(true)}>Remove file</Button>}
            {changed && <Button tone="quiet" onClick={reset}>Discard</Button>}
            <Button tone="primary" busy={busy} disabled={!changed || isBinary} onClick={deploy}>Deploy</Button>
          </div>
        </div>
        <Editor key={path} value={files[path] ?? ''} path={path} onChange={(text) => setFiles((old) => ({ ...old, [path]: text }))} onDeploy={deploy} />
        <p class="hint key-hint"><Kbd>{mod}</Kbd> <Kbd>S</Kbd> deploys. <Kbd>Esc</Kbd> then <Kbd>Tab</Kbd> leaves the editor.</p>
        {isBinary && <div class="notice">Some files are not text, so this function is deployed from the command line.</div>}
        {behind && changed && <div class="notice">Version {fn.version} was deployed meanwhile. Deploying replaces it with what you see here.</div>}
      </div>
      <div class="stack">
        <Failure error={error} />
        {deploying !== undefined && <DeploySteps key={deploying} id={fn.id} version={deploying} onLive={() => void refresh(fn.id)} />}
        {deploying === undefined && fn.deployError && (
          <div class="notice bad" role="alert"><div><p><strong>Version {fn.version} did not deploy.</strong></p><pre>{fn.deployError.message}</pre></div></div>
        )}
        <Invoke fn={fn} />
        <Card title="npm packages"><Dependencies value={dependencies} onChange={setDependencies} /></Card>
      </div>
      <NewFile open={adding} taken={names} onClose={() => setAdding(false)} onAdd={(name) => { setFiles({ ...files, [name]: '' }); setPath(name); }} />
      <Confirm
        title={`Remove ${path}?`} action="Remove" open={removing} onClose={() => setRemoving(false)}
        run={async () => {
          setFiles(Object.fromEntries(Object.entries(files).filter(([name]) => name !== path)));
          setPath(entry);
        }}
      >
        <p>It is gone from the next version you deploy; earlier versions keep it.</p>
      </Confirm>
    </div>
  );
}

function NewFile({ open, taken, onClose, onAdd }: { open: boolean; taken: string[]; onClose: () => void; onAdd: (name: string) => void }) {
  const [name, setName] = useState('');
  const wrong = taken.includes(name) ? 'There is a file of that name.' : /^[\w@.-]+(?:\/[\w@.-]+)*$/.test(name) && !name.split('/').includes('..') ? undefined : 'Write a path like lib/format.ts.';
  const submit = (event: Event) => {
    event.preventDefault();
    if (wrong) return;
    onAdd(name);
    setName('');
    onClose();
  };
  return (
    <Dialog title="New file" open={open} onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <Field label="Path" value={name} autoFocus spellcheck={false} autocapitalize="none" error={name ? wrong : undefined} onInput={(e) => setName(e.currentTarget.value.trim())} />
        <div class="dialog-actions"><Button onClick={onClose}>Cancel</Button><Button type="submit" tone="primary" disabled={Boolean(wrong)}>Add</Button></div>
      </form>
    </Dialog>
  );
}
