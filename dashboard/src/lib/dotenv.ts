// Pasted `.env` files.

export const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Variables of a text of `NAME=value` lines; `null` if it is not such a text. */
export function parse(text: string): Record<string, string> | null {
  const found: Record<string, string> = {};
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const at = line.indexOf('=');
    const name = line.slice(0, at).replace(/^export\s+/, '').trim();
    if (at < 1 || !NAME.test(name)) return null;
    found[name] = unquoted(line.slice(at + 1).trim());
  }
  return Object.keys(found).length > 0 ? found : null;
}

function unquoted(value: string): string {
  const quote = value[0];
  if (value.length >= 2 && (quote === '"' || quote === "'") && value.endsWith(quote)) {
    const inner = value.slice(1, -1);
    return quote === '"' ? inner.replace(/\\n/g, '\n').replace(/\\(["\\])/g, '$1') : inner;
  }
  return value.replace(/\s+#.*$/, '');
}
