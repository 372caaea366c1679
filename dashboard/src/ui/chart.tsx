// One chart over time. uPlot draws on a canvas; a sentence says the same to those who cannot see it.

import { useEffect, useId, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export interface Line {
  name: string;
  /** A colour of the style sheet: `--chart-1`. */
  colour: string;
  values: (number | null)[];
  kind?: 'bars' | 'line';
}

interface Props {
  title: string;
  /** Seconds since the epoch. */
  times: number[];
  lines: Line[];
  unit: (value: number) => string;
  /** What the axis reaches at least, so that a quiet chart does not magnify noise. */
  atLeast?: number;
  summary: string;
}

const HEIGHT = 168;

const DAY_S = 86_400;

/** The time of day, or over more than two days the day. */
function label(tick: number, plot: uPlot): string {
  const [low = 0, high = 0] = [plot.scales['x']?.min, plot.scales['x']?.max];
  return new Date(tick * 1_000).toLocaleString('en', high - low > 2 * DAY_S ? { month: 'short', day: 'numeric' } : { hour: '2-digit', minute: '2-digit', hour12: false });
}

/** A colour of the style sheet, as the theme of the moment has it: a canvas knows no variables. */
function colourOf(name: string): string {
  const probe = document.createElement('i');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function useTheme(): number {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const changed = () => setVersion((n) => n + 1);
    const system = matchMedia('(prefers-color-scheme: dark)');
    system.addEventListener('change', changed);
    addEventListener('themechange', changed);
    return () => {
      system.removeEventListener('change', changed);
      removeEventListener('themechange', changed);
    };
  }, []);
  return version;
}

export function Chart({ title, times, lines, unit, atLeast = 1, summary }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const theme = useTheme();
  const id = useId();
  const shape = lines.map(({ name, kind }) => `${name}:${kind}`).join();
  const data = [times, ...lines.map(({ values }) => values)] as uPlot.AlignedData;

  useEffect(() => {
    const at = host.current;
    if (!at) return;
    const text = colourOf('--muted');
    const step = (times[1] ?? 0) - (times[0] ?? 0);
    const grid = { stroke: colourOf('--line'), width: 1 };
    const axis = { stroke: text, grid, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    const bars = uPlot.paths.bars?.({ size: [0.75, 24], radius: 0.15 });
    let show = (_: uPlot): void => {};
    const made = new uPlot(
      {
        width: Math.max(at.clientWidth, 200),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
        scales: { x: { range: (_, low, high) => [low - step / 2, high + step / 2] }, y: { range: (_, __, high) => [0, Math.max(high * 1.1, atLeast)] } },
        axes: [
          { ...axis, grid: { show: false }, space: 64, size: 28, values: (self, ticks) => ticks.map((tick) => label(tick, self)) },
          { ...axis, size: 56, space: 32, values: (_, ticks) => ticks.map(unit) },
        ],
        series: [
          {},
          ...lines.map(({ name, colour, kind }) => {
            const stroke = colourOf(colour);
            return kind === 'bars' && bars
              ? { label: name, stroke, fill: stroke, width: 0, paths: bars, points: { show: false } }
              : { label: name, stroke, width: 1.75, points: { show: true, size: 6, fill: stroke, width: 0 }, spanGaps: false };
          }),
        ],
        hooks: { setCursor: [(self) => show(self)] },
      },
      data,
      at,
    );
    const tip = document.createElement('div');
    tip.className = 'chart-tip';
    tip.hidden = true;
    made.over.append(tip);
    show = (self: uPlot) => {
      const index = self.cursor.idx;
      tip.hidden = index === null || index === undefined || (self.cursor.left ?? -1) < 0;
      if (tip.hidden || index === null || index === undefined) return;
      const when = new Date((self.data[0][index] ?? 0) * 1_000);
      const rows = self.series.slice(1).map((series, n) => {
        const value = self.data[n + 1]?.[index];
        return `${String(series.label)}  ${value === null || value === undefined ? '–' : unit(value)}`;
      });
      tip.textContent = [when.toLocaleString('en', { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hour12: false }), ...rows].join('\n');
      const left = self.cursor.left ?? 0;
      tip.style.left = left > self.over.clientWidth / 2 ? '' : `${left + 12}px`;
      tip.style.right = left > self.over.clientWidth / 2 ? `${self.over.clientWidth - left + 12}px` : '';
    };
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(at.clientWidth, 200), height: HEIGHT }));
    observer.observe(at);
    plot.current = made;
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined as never;
    };
  }, [shape, theme]);

  useEffect(() => plot.current?.setData(data), [times, ...lines.map(({ values }) => values)]);

  return (
    <figure class="chart" aria-labelledby={id}>
      <figcaption id={id}>
        <span class="chart-title">{title}</span>
        <span class="legend" aria-hidden="true">
          {lines.map(({ name, colour }) => <span key={name}><i class={`swatch ${colour.slice(2)}`} />{name}</span>)}
        </span>
        <span class="visually-hidden">{summary}</span>
      </figcaption>
      <div ref={host} aria-hidden="true" />
    </figure>
  );
}
