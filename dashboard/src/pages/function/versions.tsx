import { GitCompare, Undo2 } from 'lucide-preact';
import { useState } from 'preact/hooks';
import { type Source, type Version, api } from '../../lib/api';
import { canServe } from '../../lib/versions';
import { useQuery, useRefresh, useVersions } from '../../lib/store';
import { Diff } from '../../editor/lazy';
import { Button, Card, Confirm, Failure, Loading, Status, Time } from '../../ui/parts';
import type { TabProps } from '../function';

export function Versions({ fn }: TabProps) {
  const { data, error, refetch } = useVersions(fn.id);
  const refresh = useRefresh();
  const [back, setBack] = useState<Version>();
  const [compared, setCompared] = useState<number>();
  if (error && !data) return <Failure error={error} retry={() => void refetch()} />;
  if (!data) return <Loading rows={6} />;
  const live = data.find((version) => version.active);
  return (
    <div class="stack">
      <Card title="Versions" class="flush">
        <table class="rows">
          <thead><tr><th>Version</th><th>State</th><th>Source</th><th class="num">Deployed</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
          <tbody>
            {data.map((version) => (
              <tr key={version.version} aria-selected={compared === version.version}>
                <td class="main-cell"><strong class="num">v{version.version}</strong></td>
                <td>{version.active ? <Status status="active" /> : version.status === 'active' || version.status === 'superseded' ? <span class="muted">Ready</span> : <Status status={version.status} />}</td>
                <td class="mono muted" data-label="Source">{version.sourceHash.slice(0, 10)}</td>
                <td class="num muted" data-label="Deployed"><Time at={version.createdAt} /></td>
                <td class="row-actions">
                  {live && !version.active && (
                    <Button tone="quiet" icon={GitCompare} aria-label={`Compare version ${version.version} with what is live`} onClick={() => setCompared(compared === version.version ? undefined : version.version)}>Compare</Button>
                  )}
                  {canServe(version) && (
                    <Button icon={Undo2} aria-label={`Roll back to version ${version.version}`} onClick={() => setBack(version)}>{live && version.version > live.version ? 'Roll forward' : 'Roll back'}</Button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {data.length === 1 && <p class="hint pad">Every deploy makes a version that never changes. With a second one you can compare the two and go back without a build.</p>}
      </Card>
      {live && compared !== undefined && <Comparison id={fn.id} from={live.version} to={compared} />}
      <Confirm
        title={`Serve version ${back?.version} again?`} action="Roll back" tone="primary"
        open={back !== undefined} onClose={() => setBack(undefined)}
        run={async () => {
          if (back) await api.rollback(fn.id, back.version);
          setCompared(undefined);
          await refresh(fn.id);
        }}
      >
        <p>Calls go to version {back?.version} at once; nothing is built. Version {live?.version} stays, and you can return to it.</p>
      </Confirm>
    </div>
  );
}

function useSource(id: string, version: number) {
  // Versions never change.
  return useQuery({ queryKey: ['source', id, version], queryFn: () => api.versionSource(id, version), staleTime: Infinity });
}

const changedFiles = (before: Source, after: Source) =>
  [...new Set([...Object.keys(before.files), ...Object.keys(after.files)])].sort().filter((path) => before.files[path] !== after.files[path]);

function Comparison({ id, from, to }: { id: string; from: number; to: number }) {
  const before = useSource(id, from);
  const after = useSource(id, to);
  const error = before.error ?? after.error;
  if (error) return <Failure error={error} />;
  if (!before.data || !after.data) return <Loading rows={4} />;
  const [old, other] = [before.data.source, after.data.source];
  const paths = changedFiles(old, other);
  return (
    <Card title={<>From v{from}, live, to v{to}</>} class="flush">
      {paths.length === 0 && <p class="muted none">Their files are the same; packages, environment or limits differ.</p>}
      {paths.map((path) => (
        <section key={path}>
          <h3 class="diff-file mono">{path}{path in old.files ? path in other.files ? '' : ' (not in the other)' : ' (new)'}</h3>
          <Diff before={old.files[path] ?? ''} after={other.files[path] ?? ''} path={path} />
        </section>
      ))}
    </Card>
  );
}
