// What was written and is not deployed yet, by what it is of. It outlives the page that shows it, so that
// another tab, or a session that ends, costs nothing; before the document goes, the browser asks.

const kept = new Map<string, unknown>();

const ask = (event: Event) => event.preventDefault();

export function draft<T>(of: string): T | undefined {
  return kept.get(of) as T | undefined;
}

/** Keeps what was written, or nothing any more. */
export function keep(of: string, written: unknown): void {
  if (written === undefined) kept.delete(of);
  else kept.set(of, written);
  // Twice the same listener is one.
  if (kept.size > 0) addEventListener('beforeunload', ask);
  else removeEventListener('beforeunload', ask);
}

/** Whoever signs out leaves nothing behind. */
export function discardAll(): void {
  for (const of of [...kept.keys()]) keep(of, undefined);
}
