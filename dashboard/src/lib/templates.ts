// What a new function can begin as. Each is complete and deploys as it stands.

export interface Template {
  id: string;
  title: string;
  what: string;
  name: string;
  filename: string;
  code: string;
  dependencies?: Record<string, string>;
}

/** A name that no function has: a deploy under one that is there would replace what it serves. */
export function freeName(wanted: string, taken: ReadonlySet<string>): string {
  if (!taken.has(wanted)) return wanted;
  for (let n = 2; ; n += 1) {
    const name = `${wanted}-${n}`;
    if (!taken.has(name)) return name;
  }
}

export const TEMPLATES: readonly [Template, ...Template[]] = [
  {
    id: 'hello',
    title: 'Hello',
    what: 'One handler that answers JSON and writes a log line.',
    name: 'hello',
    filename: 'index.ts',
    code: `interface Event {
  method: string;
  query: Record<string, string>;
  body: unknown;
}

export default async function handler(event: Event) {
  const name = event.query.name ?? 'world';
  console.log('greeting', name);
  return { message: \`Hello, \${name}!\` };
}
`,
  },
  {
    id: 'fetch',
    title: 'Web API',
    what: 'Request in, Response out, as in the browser.',
    name: 'web-api',
    filename: 'index.ts',
    code: `export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    console.info(request.method, url.pathname);

    if (request.method === 'POST') {
      const body = await request.json();
      return Response.json({ received: body }, { status: 201 });
    }
    return Response.json({ path: url.pathname });
  },
};
`,
  },
  {
    id: 'npm',
    title: 'With npm packages',
    what: 'Imports lodash; versions are resolved when you deploy.',
    name: 'with-lodash',
    filename: 'index.ts',
    dependencies: { lodash: '^4' },
    code: `import _ from 'lodash';

export async function POST(request: Request) {
  const { words = [] } = await request.json();
  return Response.json(_.countBy(words, _.toLower));
}

export function GET() {
  return Response.json({ hint: 'POST {"words": ["a", "b", "A"]}' });
}
`,
  },
];
