import { useEffect, useState } from 'preact/hooks';
import { useLocation, useSearch } from 'wouter-preact';
import { type DeployBody, type Fn, api } from '../lib/api';
import { draft, keep } from '../lib/drafts';
import { useFunctions, useMe, useRefresh } from '../lib/store';
import { TEMPLATES, type Template, freeName } from '../lib/templates';
import { Dependencies } from '../editor/dependencies';
import { Editor } from '../editor/lazy';
import { DeploySteps } from '../ui/deploy-steps';
import { mod } from '../lib/keyboard';
import { Button, Card, Failure, Field, Kbd, PageHead, Segmented, fieldErrors } from '../ui/parts';

interface Draft {
  template: Template;
  name: string | undefined;
  code: string;
  dependencies: Record<string, string>;
  visibility: 'private' | 'public';
}

const begun = (template: Template): Draft => ({
  template, name: undefined, code: template.code, dependencies: template.dependencies ?? {}, visibility: 'private',
});

export function NewFunction() {
  const [, go] = useLocation();
  const search = useSearch();
  const me = useMe();
  const refresh = useRefresh();
  // By account: after a session that ended somebody else may sign in.
  const of = `new ${me.data?.userName}`;
  const wanted = new URLSearchParams(search).get('template');
  const [first] = useState(() => draft<Draft>(of) ?? begun(TEMPLATES.find(({ id }) => id === wanted) ?? TEMPLATES[0]));
  const [template, setTemplate] = useState(first.template);
  const [typed, setTyped] = useState(first.name);
  const [code, setCode] = useState(first.code);
  const [dependencies, setDependencies] = useState(first.dependencies);
  const [visibility, setVisibility] = useState(first.visibility);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [deployed, setDeployed] = useState<Fn>();

  const taken = new Set(useFunctions().data?.map((fn) => fn.name));
  const name = typed ?? deployed?.name ?? freeName(template.name, taken);
  // What was deployed from here may be deployed again.
  const isTaken = name.trim() !== deployed?.name && taken.has(name.trim());
  const changed = !deployed && code !== template.code;
  useEffect(() => {
    keep(of, changed ? { template, name: typed, code, dependencies, visibility } : undefined);
  }, [changed, template, typed, code, dependencies, visibility]);

  const choose = (id: string) => {
    const chosen = TEMPLATES.find((one) => one.id === id);
    if (!chosen || (code !== template.code && !confirm('Replace what you have written?'))) return;
    setTemplate(chosen);
    setCode(chosen.code);
    setDependencies(chosen.dependencies ?? {});
  };
  const deploy = async () => {
    if (busy || isTaken) return;
    setBusy(true);
    setError(undefined);
    const body: DeployBody = { files: { [template.filename]: code }, dependencies, visibility };
    try {
      setDeployed(await api.deploy(name.trim(), body));
      void refresh();
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const wrong = fieldErrors(error);
  return (
    <>
      <PageHead title="New function" sub="It is deployed as version 1 and answers as soon as it has loaded once.">
        <Button tone="primary" busy={busy} disabled={isTaken || (deployed !== undefined && !error)} onClick={deploy}>Deploy</Button>
      </PageHead>
      <div class="split">
        <div class="stack">
          <Segmented label="Template" options={TEMPLATES.map((one) => [one.id, one.title] as const)} value={template.id} onChange={choose} />
          <Editor key={template.id} value={code} path={template.filename} onChange={setCode} onDeploy={deploy} />
          <p class="hint key-hint"><Kbd>{mod}</Kbd> <Kbd>S</Kbd> deploys. <Kbd>Esc</Kbd> then <Kbd>Tab</Kbd> leaves the editor.</p>
        </div>
        <div class="stack">
          <Card title="Name">
            <Field
              label="Function name"
              value={name}
              spellcheck={false}
              autocapitalize="none"
              hint={<>Called at <span class="mono">/run/{me.data?.userName}/{name || '…'}</span></>}
              error={isTaken ? 'There is a function of this name; its own page changes it.' : wrong['name']}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
            <Segmented label="Who may call it" options={[['private', 'Private'], ['public', 'Public']]} value={visibility} onChange={setVisibility} />
            <p class="hint">{visibility === 'private' ? 'Only you and your API keys may call it.' : 'Anybody who knows the address may call it.'}</p>
          </Card>
          <Card title="npm packages">
            <Dependencies value={dependencies} onChange={setDependencies} />
          </Card>
          {!wrong['name'] && <Failure error={error} />}
          {deployed && (
            <DeploySteps
              id={deployed.id}
              version={deployed.version}
              onLive={() => go(`/functions/${deployed.id}/code`)}
              onFailed={() => go(`/functions/${deployed.id}/code`)}
            />
          )}
        </div>
      </div>
    </>
  );
}
