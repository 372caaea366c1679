import { Plus, X } from 'lucide-preact';
import { useState } from 'preact/hooks';
import { Button, IconButton } from '../ui/parts';

const SPEC = /^(@?[^@\s]+)(?:@(\S+))?$/;

type Packages = Record<string, string>;

export function Dependencies({ value, onChange }: { value: Packages; onChange: (value: Packages) => void }) {
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState(false);
  const add = (event: Event) => {
    event.preventDefault();
    const [, name, range = 'latest'] = SPEC.exec(text.trim()) ?? [];
    setWrong(!name);
    if (!name) return;
    onChange({ ...value, [name]: range });
    setText('');
  };
  const without = (name: string) => onChange(Object.fromEntries(Object.entries(value).filter(([other]) => other !== name)));
  const names = Object.keys(value).sort();
  return (
    <div class="stack tight">
      {names.length > 0 && (
        <ul class="chips" aria-label="Packages">
          {names.map((name) => (
            <li key={name} class="chip mono">
              {name} <span class="muted">{value[name]}</span>
              <IconButton icon={X} label={`Remove ${name}`} onClick={() => without(name)} />
            </li>
          ))}
        </ul>
      )}
      <form class="inline" onSubmit={add}>
        <input class="mono" aria-label="Package and version" aria-invalid={wrong} placeholder="zod@^3" value={text} spellcheck={false} autocapitalize="none" onInput={(e) => setText(e.currentTarget.value)} />
        <Button type="submit" icon={Plus} disabled={text.trim() === ''}>Add</Button>
      </form>
      <p class="hint">{wrong ? 'Write a package like zod or zod@^3.' : 'Every package the code imports must be listed.'}</p>
    </div>
  );
}
