// Pasted `.env` files, read as `cloudserve env` reads them (cli/src/client/env_file.rs).

export const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * Variables of a text of `NAME=value` lines; `null` if it is not such a text. Throws where a quote leaves
 * open what is meant, and names the line: it may hold a secret.
 */
export function parse(text: string): Record<string, string> | null {
  const found: Record<string, string> = {};
  for (const [number, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const at = line.indexOf('=');
    const name = line.slice(0, at).replace(/^export\s+/, '').trim();
    if (at < 1 || !NAME.test(name)) return null;
    found[name] = unquoted(line.slice(at + 1), number + 1);
  }
  return Object.keys(found).length > 0 ? found : null;
}

function unquoted(text: string, line: number): string {
  const value = text.trim();
  const quote = value[0];
  if (quote !== '"' && quote !== "'") return text.replace(/\s#.*$/, '').trim();
  const [, inside, after] = (quote === '"' ? /^"((?:[^"\\]|\\.)*)"(.*)$/s : /^'([^']*)'(.*)$/s).exec(value) ?? [];
  if (inside === undefined) throw new Error(`Line ${line} has a quote that is not closed.`);
  if (!/^\s*(?:#|$)/.test(after ?? '')) throw new Error(`Line ${line} has more than a comment after its closing quote.`);
  return quote === '"' ? inside.replace(/\\(["\\n])/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped)) : inside;
}
