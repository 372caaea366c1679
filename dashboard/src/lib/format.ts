// Figures and times as people read them.

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export function count(value: number): string {
  return value < 10_000 ? number.format(value) : compact.format(value);
}

export function milliseconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  if (value === 0) return '0 ms';
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} ms`;
  if (value < 1_000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${(value / 1_000).toFixed(value < 10_000 ? 2 : 1)} s`;
  const seconds = Math.round(value / 1_000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

export function megabytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  if (value === 0) return '0 MB';
  return value < 10 ? `${value.toFixed(1)} MB` : `${Math.round(value)} MB`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  if (value < 1_024) return `${value} B`;
  if (value < 1_024 ** 2) return `${(value / 1_024).toFixed(1)} KB`;
  if (value < 1_024 ** 3) return `${(value / 1_024 ** 2).toFixed(1)} MB`;
  return `${(value / 1_024 ** 3).toFixed(1)} GB`;
}

export function percent(part: number, whole: number): string {
  if (whole === 0) return '–';
  const value = (part / whole) * 100;
  if (value === 0) return '0%';
  return value < 0.1 ? '<0.1%' : `${value.toFixed(value < 10 ? 1 : 0)}%`;
}

const STEPS: [limitS: number, unitS: number, unit: string][] = [
  [60, 1, 's'],
  [3_600, 60, 'min'],
  [86_400, 3_600, 'h'],
  [30 * 86_400, 86_400, 'd'],
];

/** "12 s ago". Times a little ahead, from a clock that is, are now. */
export function ago(time: string | number, now = Date.now()): string {
  const seconds = Math.max(0, (now - new Date(time).getTime()) / 1_000);
  if (seconds < 5) return 'just now';
  for (const [limit, unit, name] of STEPS) {
    if (seconds < limit) return `${Math.floor(seconds / unit)} ${name} ago`;
  }
  return day(time);
}

export function day(time: string | number): string {
  return new Date(time).toLocaleDateString('en', { year: 'numeric', month: 'short', day: 'numeric' });
}

/** When the day began, in UTC, that is so many days before this one: days are counted in UTC. */
export function utcDay(daysBefore: number, now = Date.now()): string {
  return new Date((Math.floor(now / 86_400_000) - daysBefore) * 86_400_000).toISOString();
}

/** JSON with line breaks; as it is if that would change more, as with numbers that JavaScript cannot hold. */
export function readable(json: string): string {
  try {
    const value: unknown = JSON.parse(json);
    const bare = json.replace(/("(?:[^"\\]+|\\.)*")|\s+/g, '$1');
    return JSON.stringify(value) === bare ? JSON.stringify(value, null, 2) : json;
  } catch {
    return json;
  }
}

export function full(time: string | number): string {
  return new Date(time).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'medium' });
}

/** Local time of a log line, to the millisecond. */
export function clock(time: string): string {
  const at = new Date(time);
  const two = (value: number) => String(value).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}
