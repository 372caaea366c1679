// The audit trail: what was done to the account, newest first.

import type { ApiKey, AuditEntry } from '../lib/api';
import { useAudit } from '../lib/store';
import { Button, Card, Failure, Loading, Time } from './parts';

const ACTIONS: Record<string, string> = {
  'apikey.created': 'Key created',
  'apikey.revoked': 'Key revoked',
  'function.deployed': 'Deployed',
  'function.visibility_changed': 'Visibility changed',
  'function.rolled_back': 'Rolled back',
  'function.env_changed': 'Environment changed',
  'function.deleted': 'Deleted',
  'quota.changed': 'Quota changed',
};

interface Props {
  nameOf: (functionId: string) => string;
  /** Undefined until they are known. */
  keys: readonly ApiKey[] | undefined;
}

export function Trail({ nameOf, keys }: Props) {
  const { data, error, refetch, hasNextPage, isFetchingNextPage, fetchNextPage } = useAudit();
  const keyName = (id: string | null) => (keys ? (keys.find((key) => key.id === id)?.name ?? '(revoked)') : '…');
  const by = ({ actor, apiKeyId }: AuditEntry) =>
    actor === 'session' ? 'you, signed in' : actor === 'operator' ? 'the operator' : `key ${keyName(apiKeyId)}`;
  const what = ({ action, subject, detail }: AuditEntry) => {
    const of = action.startsWith('function.') && subject ? nameOf(subject) : '';
    return [of, detail].filter(Boolean).join(', ');
  };
  const entries = data?.pages.flatMap((page) => page.entries);
  return (
    <Card class="flush trail" title="What was done, and with what">
      {error && !data ? <Failure error={error} retry={() => void refetch()} />
        : !entries ? <Loading rows={3} />
          : entries.length === 0
            ? <p class="muted none">Deploys, changes and keys will be listed here.</p>
            : (
              <table class="rows">
                <thead><tr><th>What</th><th>Of</th><th>By</th><th class="num">When</th></tr></thead>
                <tbody>
                  {entries.map((entry) => (
                    <tr key={entry.id}>
                      <td class="main-cell">{ACTIONS[entry.action] ?? entry.action}</td>
                      <td class="mono small">{what(entry)}</td>
                      <td class="muted" data-label="By">{by(entry)}</td>
                      <td class="num muted" data-label="When"><Time at={entry.timestamp} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )}
      {hasNextPage && <p class="pad"><Button busy={isFetchingNextPage} onClick={() => void fetchNextPage()}>Earlier</Button></p>}
    </Card>
  );
}
