import { useState } from 'preact/hooks';
import { Link } from 'wouter-preact';
import { api } from '../lib/api';
import { count, milliseconds, percent, utcDay } from '../lib/format';
import { useFunctions, useQuery } from '../lib/store';
import { Card, Failure, Loading, PageHead } from '../ui/parts';
import { UsagePanel } from '../ui/usage-panel';

export function Usage() {
  const functions = useFunctions();
  const [id, setId] = useState('');
  const chosen = functions.data?.find((fn) => fn.id === id);
  return (
    <>
      <PageHead title="Usage" sub={chosen ? chosen.endpoint : 'All functions of this account'}>
        <select aria-label="Function" value={id} onChange={(event) => setId(event.currentTarget.value)}>
          <option value="">All functions</option>
          {functions.data?.map((fn) => <option key={fn.id} value={fn.id}>{fn.name}</option>)}
        </select>
      </PageHead>
      <div class="stack">
        <UsagePanel key={id} {...(id && { functionId: id })} empty={<p>No call in this time. <Link href="/">Pick a function</Link> and invoke it: its calls, errors and latency are drawn here.</p>} />
        <Days functionId={id} />
      </div>
    </>
  );
}

const SHOWN_DAYS = 14;

function Days({ functionId }: { functionId: string }) {
  const { data, error } = useQuery({
    queryKey: ['days', functionId],
    queryFn: () => api.days({ ...(functionId && { functionId }), from: utcDay(SHOWN_DAYS - 1) }),
  });
  if (error) return <Failure error={error} />;
  if (!data) return <Loading rows={3} />;
  if (data.length === 0) return null;
  return (
    <Card title="By day (UTC)" class="flush">
      <table class="rows">
        <thead><tr><th>Day</th><th class="num">Calls</th><th class="num">Errors</th><th class="num">Cold</th><th class="num">Time</th><th class="num">CPU</th><th class="num">GB-seconds</th></tr></thead>
        <tbody>
          {[...data].reverse().map((day) => (
            <tr key={day.day}>
              <td class="main-cell num">{day.day}</td>
              <td class="num" data-label="Calls">{count(day.executed)}</td>
              <td class="num" data-label="Errors">{percent(day.errors, day.executed)}</td>
              <td class="num" data-label="Cold">{percent(day.cold, day.executed)}</td>
              <td class="num" data-label="Time">{milliseconds(day.durationMs)}</td>
              <td class="num" data-label="CPU">{milliseconds(day.cpuMs)}</td>
              <td class="num" data-label="GB-seconds">{day.gbSeconds.toFixed(3)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}
