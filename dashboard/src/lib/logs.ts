// Log rows, one per call, as the lines people read and filter.

import type { LogLevel, LogRow } from './api';

export interface Line {
  /** Of its row and place in it: stable across the list and the stream. */
  key: string;
  level: LogLevel;
  message: string;
  timestamp: string;
  executionId: string;
}

export interface Filter {
  text: string;
  levels: ReadonlySet<LogLevel>;
}

/** What one page holds at most; the oldest lines go first. */
export const MAX_LINES = 2_000;
/** The same in characters of messages: one call may write 256 KB and more. */
export const MAX_CHARACTERS = 8_000_000;

/** Whether a filter's text is the id of a call, whole. */
export const isCall = (text: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);

export function linesOf(row: LogRow): Line[] {
  const lines = row.logs.map((line, index) => ({
    key: `${row.executionId}:${index}`,
    level: line.level,
    message: line.message,
    timestamp: line.timestamp,
    executionId: row.executionId,
  }));
  if (row.truncated) {
    lines.push({
      key: `${row.executionId}:cut`,
      level: 'warn',
      message: 'This call wrote more than limits.logBytes; the rest was not kept.',
      timestamp: row.timestamp,
      executionId: row.executionId,
    });
  }
  return lines;
}

/** Adds rows to lines that are there: each line once, oldest first, bounded. */
export function merge(lines: readonly Line[], rows: readonly LogRow[]): Line[] {
  const known = new Set(lines.map((line) => line.key));
  const added = rows.flatMap(linesOf).filter((line) => !known.has(line.key));
  if (added.length === 0) return lines as Line[];
  // Sorting is stable: lines of one millisecond keep the order in which they were written.
  const all = [...lines, ...added].sort((a, b) => (a.timestamp < b.timestamp ? -1 : a.timestamp > b.timestamp ? 1 : 0));
  return newest(all, (line) => line.message.length);
}

/** The newest of what is in order, within both bounds; of one that is too long by itself, that one. */
function newest<T>(all: T[], characters: (of: T) => number): T[] {
  let begin = all.length;
  let left = MAX_CHARACTERS;
  while (begin > 0 && all.length - begin < MAX_LINES) {
    left -= characters(all[begin - 1] as T);
    if (left < 0 && begin < all.length) break;
    begin -= 1;
  }
  return all.slice(begin);
}

/** Rows that wait to be shown, and some more of them: bounded, the newest stay. */
export function waiting(rows: readonly LogRow[], more: readonly LogRow[]): LogRow[] {
  return newest([...rows, ...more], (row) => row.logs.reduce((sum, line) => sum + line.message.length, 0));
}

export function matches(line: Line, { text, levels }: Filter): boolean {
  if (levels.size > 0 && !levels.has(line.level)) return false;
  if (text === '') return true;
  const wanted = text.toLowerCase();
  return line.message.toLowerCase().includes(wanted) || line.executionId.startsWith(wanted);
}
