import { useEffect, useRef } from 'preact/hooks';

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
export const mod = isMac ? '⌘' : 'Ctrl';

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** A second key must follow the first within this time. */
const SEQUENCE_MS = 1_000;

/**
 * Keys of a page: `n`, `g f` (one after the other), `mod+k`. Plain keys are not heard while
 * somebody types or a dialog is open.
 */
export function useKeyboard(bindings: Record<string, () => void>): void {
  const current = useRef(bindings);
  current.current = bindings;
  useEffect(() => {
    let before = { key: '', at: 0 };
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.altKey) return;
      if (event.metaKey || event.ctrlKey) {
        const run = current.current[`mod+${event.key.toLowerCase()}`];
        if (run) {
          event.preventDefault();
          run();
        }
        return;
      }
      // The editor is in a shadow tree: the innermost target tells whether somebody types.
      if (isTyping(event.composedPath()[0] ?? null) || document.querySelector('dialog[open]')) return;
      const sequence = event.timeStamp - before.at < SEQUENCE_MS ? `${before.key} ${event.key}` : '';
      before = { key: event.key, at: event.timeStamp };
      const run = current.current[sequence] ?? current.current[event.key];
      if (run) {
        event.preventDefault();
        run();
      }
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
}
