// Calls, errors, latency, cold share and memory over a range of time.

import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { type Series, api } from '../lib/api';
import { count, full, megabytes, milliseconds, percent } from '../lib/format';
import { useQuery } from '../lib/store';
import { Chart } from './chart';
import { Card, Failure, Loading, Segmented } from './parts';

const HOUR_MS = 3_600_000;
const RANGES = [
  ['1h', '1 hour', HOUR_MS, 5_000],
  ['24h', '24 hours', 24 * HOUR_MS, 30_000],
  ['7d', '7 days', 7 * 24 * HOUR_MS, 60_000],
  ['30d', '30 days', 30 * 24 * HOUR_MS, 60_000],
] as const;
type Range = (typeof RANGES)[number][0];

const POINTS = 60;

export function useSeries(functionId: string | undefined, range: Range) {
  const [, , spanMs, everyMs] = RANGES.find(([name]) => name === range) ?? RANGES[0];
  return useQuery({
    queryKey: ['series', functionId ?? '', range],
    queryFn: () => {
      // Whole steps, so that a call stays in its bar while time moves on.
      const stepMs = spanMs / POINTS;
      const to = (Math.floor(Date.now() / stepMs) + 1) * stepMs;
      return api.series({ functionId, from: new Date(to - spanMs).toISOString(), to: new Date(to).toISOString(), points: POINTS });
    },
    refetchInterval: everyMs,
  });
}

function sumsOf({ points }: Series) {
  const sum = (pick: (point: Series['points'][number]) => number) => points.reduce((total, point) => total + pick(point), 0);
  const peak = (pick: (point: Series['points'][number]) => number | null) => points.reduce<number | null>((top, point) => {
    const value = pick(point);
    return value === null ? top : Math.max(top ?? 0, value);
  }, null);
  return { executed: sum((p) => p.executed), errors: sum((p) => p.errors), cold: sum((p) => p.cold), memory: peak((p) => p.memory) };
}

export function UsagePanel({ functionId, empty }: { functionId?: string; empty: ComponentChildren }) {
  const [range, setRange] = useState<Range>('1h');
  const { data, error, refetch } = useSeries(functionId, range);
  const choose = <Segmented label="Time range" options={RANGES.map(([name]) => [name, name] as const)} value={range} onChange={setRange} />;
  const title = RANGES.find(([name]) => name === range)?.[1] ?? '';
  return (
    <Card title={`Last ${title}`} action={choose} class="usage">
      {error && !data ? <Failure error={error} retry={() => void refetch()} /> : !data ? <Loading rows={6} /> : <Figures series={data} empty={empty} />}
    </Card>
  );
}

function Figures({ series, empty }: { series: Series; empty: ComponentChildren }) {
  const { points, overall } = series;
  const { executed, errors, cold, memory } = sumsOf(series);
  const times = points.map((point) => Date.parse(point.timestamp) / 1_000);
  const tiles: [name: string, value: string][] = [
    ['Calls', count(executed)],
    ['Errors', percent(errors, executed)],
    ['p50', milliseconds(overall.p50)],
    ['p99', milliseconds(overall.p99)],
    ['Cold', percent(cold, executed)],
    ['Peak memory', megabytes(memory)],
  ];
  return (
    <>
      <dl class="tiles" data-calls={executed}>
        {tiles.map(([name, value]) => (
          <div key={name}><dt>{name}</dt><dd class={name === 'Errors' && errors > 0 ? 'bad-text' : undefined}>{value}</dd></div>
        ))}
      </dl>
      {executed === 0
        ? <div class="chart-empty">{empty}</div>
        : (
          <div class="charts">
            <Chart
              title="Calls" times={times} unit={count} atLeast={4}
              summary={`${count(executed)} calls, ${count(errors)} of them failed.`}
              lines={[
                { name: 'Calls', colour: '--chart-1', kind: 'bars', values: points.map((p) => p.executed) },
                { name: 'Errors', colour: '--chart-bad', kind: 'bars', values: points.map((p) => p.errors || null) },
              ]}
            />
            <Chart
              title="Latency" times={times} unit={milliseconds}
              summary={`Half of the calls took at most ${milliseconds(overall.p50)}, 99 of 100 at most ${milliseconds(overall.p99)}.`}
              lines={[
                { name: 'p50', colour: '--chart-1', values: points.map((p) => p.p50) },
                { name: 'p99', colour: '--chart-2', values: points.map((p) => p.p99) },
              ]}
            />
            <Chart
              title="Cold starts" times={times} unit={(value) => `${Math.round(value)}%`} atLeast={10}
              summary={`${count(cold)} of ${count(executed)} calls loaded the function first.`}
              lines={[{ name: 'Share of calls', colour: '--chart-3', kind: 'bars', values: points.map((p) => (p.executed ? (p.cold / p.executed) * 100 : null)) }]}
            />
            <Chart
              title="Memory" times={times} unit={megabytes} atLeast={16}
              summary={`At most ${megabytes(memory)} in use at once by one call.`}
              lines={[{ name: 'Peak', colour: '--chart-4', values: points.map((p) => p.memory) }]}
            />
          </div>
        )}
      {series.completeFrom && <p class="hint">There are too many calls to draw them all: the figures are of the newest, from {full(series.completeFrom)} on. Totals by day are on the usage page.</p>}
    </>
  );
}

