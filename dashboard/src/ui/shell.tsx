// The frame around every screen: navigation, the command palette, the keys.

import { Activity, Boxes, CircleUser, KeyRound, Plus, Search } from 'lucide-preact';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Link, useLocation } from 'wouter-preact';
import type { User } from '../lib/api';
import { mod, useKeyboard } from '../lib/keyboard';
import { messageOf, useFunctions } from '../lib/store';
import { Palette } from './palette';
import { Dialog, Kbd, Logo } from './parts';

const PLACES = [
  { to: '/', name: 'Functions', icon: Boxes, at: (path: string) => path === '/' || path === '/new' || path.startsWith('/functions') },
  { to: '/usage', name: 'Usage', icon: Activity, at: (path: string) => path === '/usage' },
  { to: '/keys', name: 'API keys', icon: KeyRound, at: (path: string) => path === '/keys' },
  { to: '/account', name: 'Account', icon: CircleUser, at: (path: string) => path === '/account' },
] as const;

const SHORTCUTS: [string[], string][] = [
  [[mod, 'K'], 'Go anywhere'],
  [['N'], 'New function'],
  [['/'], 'Search the list'],
  [[mod, 'S'], 'Deploy what the editor holds'],
  [[mod, '↵'], 'Send the request of the invoke panel'],
  [['G', 'F'], 'Functions'],
  [['G', 'U'], 'Usage'],
  [['G', 'K'], 'API keys'],
  [['G', 'A'], 'Account'],
  [['?'], 'This list'],
];

const RECENT = 8;

export function Shell({ user, children }: { user: User; children: ComponentChildren }) {
  const [path, go] = useLocation();
  const [palette, setPalette] = useState(false);
  const [help, setHelp] = useState(false);
  const main = useRef<HTMLElement>(null);
  const functions = useFunctions();

  useKeyboard({
    'mod+k': () => setPalette((open) => !open),
    n: () => go('/new'),
    'g f': () => go('/'),
    'g u': () => go('/usage'),
    'g k': () => go('/keys'),
    'g a': () => go('/account'),
    '?': () => setHelp(true),
  });
  // A new page begins at its top.
  useEffect(() => scrollTo(0, 0), [path]);

  const recent = [...(functions.data ?? [])].sort((a, b) => b.updatedAt.localeCompare(a.updatedAt)).slice(0, RECENT);
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to content</a>
      <aside class="side">
        <Link href="/" class="brand"><Logo /> CloudServe</Link>
        <button type="button" class="search-button" onClick={() => setPalette(true)}>
          <Search size={14} aria-hidden="true" /> <span>Go to…</span> <span class="keys" aria-hidden="true"><Kbd>{mod}</Kbd><Kbd>K</Kbd></span>
        </button>
        <nav aria-label="Main">
          {PLACES.map(({ to, name, icon: Icon, at }) => (
            <Link key={to} href={to} class="place" aria-current={at(path) ? 'page' : undefined}>
              <Icon size={16} aria-hidden="true" /> <span>{name}</span>
            </Link>
          ))}
        </nav>
        {recent.length > 0 && (
          <nav class="recent" aria-label="Recent functions">
            <p class="over">Recent</p>
            {recent.map((fn) => (
              <Link key={fn.id} href={`/functions/${fn.id}`} class="place" aria-current={path.startsWith(`/functions/${fn.id}`) ? 'true' : undefined}>
                <span class={`dot ${fn.status}`} aria-hidden="true" /> <span class="mono clip">{fn.name}</span>
              </Link>
            ))}
          </nav>
        )}
        <div class="side-foot">
          <Link href="/new" class="button plain wide"><Plus size={15} aria-hidden="true" /><span>New function</span></Link>
          <p class="who"><span class="avatar" aria-hidden="true">{user.fullName.slice(0, 1).toUpperCase()}</span><span class="clip">{user.userName}</span></p>
        </div>
      </aside>
      <main id="main" ref={main} tabIndex={-1}>
        {functions.isRefetchError && <div class="notice bad" role="alert"><p>{messageOf(functions.error)} What is shown may be out of date.</p></div>}
        {children}
      </main>
      <Palette open={palette} onClose={() => setPalette(false)} />
      <Dialog title="Keyboard" open={help} onClose={() => setHelp(false)}>
        <dl class="shortcuts">
          {SHORTCUTS.map(([keys, what]) => (
            <div key={what}>
              <dt>{what}</dt>
              <dd>{keys.map((key) => <Kbd key={key}>{key}</Kbd>)}</dd>
            </div>
          ))}
        </dl>
      </Dialog>
    </div>
  );
}
