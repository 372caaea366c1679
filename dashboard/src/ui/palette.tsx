// Everything there is to go to, by typing a part of its name.

import { useEffect, useState } from 'preact/hooks';
import { useLocation } from 'wouter-preact';
import { signOut, useFunctions } from '../lib/store';
import { setTheme } from '../lib/theme';
import { Dialog } from './parts';

interface Entry {
  name: string;
  hint: string;
  run: () => void;
}

const SHOWN = 9;

export function Palette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const [, go] = useLocation();
  const functions = useFunctions();
  useEffect(() => {
    setText('');
    setAt(0);
  }, [open]);

  const to = (path: string) => () => go(path);
  const entries: Entry[] = [
    ...(functions.data ?? []).map((fn) => ({ name: fn.name, hint: 'Function', run: to(`/functions/${fn.id}`) })),
    ...(functions.data ?? []).flatMap((fn) => [
      { name: `${fn.name}: edit code`, hint: 'Function', run: to(`/functions/${fn.id}/code`) },
      { name: `${fn.name}: logs`, hint: 'Function', run: to(`/functions/${fn.id}/logs`) },
    ]),
    { name: 'Functions', hint: 'Page', run: to('/') },
    { name: 'New function', hint: 'Action', run: to('/new') },
    { name: 'Usage', hint: 'Page', run: to('/usage') },
    { name: 'API keys', hint: 'Page', run: to('/keys') },
    { name: 'Account and quotas', hint: 'Page', run: to('/account') },
    { name: 'Theme: dark', hint: 'Action', run: () => setTheme('dark') },
    { name: 'Theme: light', hint: 'Action', run: () => setTheme('light') },
    { name: 'Theme: as the system', hint: 'Action', run: () => setTheme('system') },
    { name: 'API reference', hint: 'Page', run: () => open_('/api/openapi.json') },
    {
      name: 'Sign out',
      hint: 'Action',
      run: () => void signOut().catch(() => go('/account')),
    },
  ];
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word))).slice(0, SHOWN);
  const chosen = Math.min(at, Math.max(0, found.length - 1));
  const run = (entry: Entry | undefined) => {
    if (!entry) return;
    onClose();
    entry.run();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'ArrowDown') setAt((chosen + 1) % Math.max(1, found.length));
    else if (event.key === 'ArrowUp') setAt((chosen - 1 + found.length) % Math.max(1, found.length));
    else if (event.key === 'Enter') run(found[chosen]);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Go to" open={open} onClose={onClose} class="palette">
      <input
        type="text"
        role="combobox"
        aria-label="Search functions, pages and actions"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={found[chosen] ? `palette-${chosen}` : undefined}
        placeholder="Search functions, pages and actions"
        value={text}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={onKeyDown}
      />
      <ul id="palette-list" role="listbox" aria-label="Results">
        {found.map((entry, index) => (
          // The keyboard is the text field's, as in any combobox.
          <li
            key={entry.name}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === chosen}
            onMouseMove={() => setAt(index)}
            onClick={() => run(entry)}
          >
            <span>{entry.name}</span> <span class="muted">{entry.hint}</span>
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="muted none">Nothing has that name.</p>}
    </Dialog>
  );
}

function open_(path: string): void {
  window.open(path, '_blank', 'noopener');
}
