import { useState } from 'preact/hooks';
import { Link, useLocation } from 'wouter-preact';
import { useHistoryState } from 'wouter-preact/use-browser-location';
import { ApiError, api } from '../lib/api';
import { askWho, messageOf } from '../lib/store';
import type { ComponentChildren } from 'preact';
import { Button, Failure, Field, Logo, fieldErrors, useTitle } from '../ui/parts';

function useSession() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const begin = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setError(undefined);
    try {
      await work();
      await askWho();
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return { busy, error, begin };
}

const values = (event: Event) => {
  event.preventDefault();
  const form = new FormData(event.currentTarget as HTMLFormElement);
  return (name: string) => String(form.get(name) ?? '');
};

function Frame({ title, children }: { title: string; children: ComponentChildren }) {
  useTitle(title);
  return (
    <main class="auth">
      <div class="auth-form">
        <p class="brand"><Logo /> CloudServe</p>
        <h1>{title}</h1>
        {children}
      </div>
      <aside class="auth-show" aria-label="What a function looks like">
        <pre><code>{`// index.ts
export default async function (event) {
  console.log('greeting', event.query.name);
  return { message: \`Hello, \${event.query.name}!\` };
}`}</code></pre>
        <pre class="answer"><code><span class="muted">$ curl …/run/ada/hello?name=Grace</span>{`
{"message":"Hello, Grace!"}
`}<span class="muted">200 · 1.2 ms · warm</span></code></pre>
        <p>Write a function, deploy it, call it over HTTP milliseconds later.</p>
      </aside>
    </main>
  );
}

const waiting = (error: unknown) =>
  error instanceof ApiError && error.code === 'too_many_attempts' && error.retryAfterS
    ? new Error(`Too many attempts. Try again in ${error.retryAfterS} s.`)
    : error instanceof ApiError && error.code === 'invalid_credentials'
      ? new Error('The name or the password is wrong.')
      : error;

/** What is told of an account that was made and not signed in to. */
interface Made {
  who: string;
  why: string;
}

export function SignIn() {
  const made = useHistoryState<{ made?: Made } | null>()?.made;
  const { busy, error, begin } = useSession();
  const submit = (event: Event) => {
    const value = values(event);
    void begin(() => api.login(value('who').trim(), value('password')));
  };
  return (
    <Frame title="Sign in">
      <form class="stack" onSubmit={submit}>
        {made && !error && <div class="notice" role="status"><p>Your account was made, but you could not be signed in: {made.why} Sign in here.</p></div>}
        <Field label="Email or user name" name="who" autocomplete="username" required autoFocus={!made} defaultValue={made?.who} spellcheck={false} autocapitalize="none" />
        <Field label="Password" name="password" type="password" autocomplete="current-password" required autoFocus={Boolean(made)} />
        <Failure error={waiting(error)} />
        <Button type="submit" tone="primary" busy={busy} class="wide">Sign in</Button>
      </form>
      <p class="muted">New here? <Link href="/signup">Create an account</Link></p>
    </Frame>
  );
}

export function SignUp() {
  const { busy, error, begin } = useSession();
  const [, go] = useLocation();
  const submit = (event: Event) => {
    const value = values(event);
    const [email, password] = [value('email').trim(), value('password')];
    void begin(async () => {
      await api.register({ fullName: value('fullName'), userName: value('userName').trim(), email, password });
      try {
        await api.login(email, password);
      } catch (failed) {
        // A second try would find the name taken.
        go('/login', { state: { made: { who: email, why: messageOf(waiting(failed)) } satisfies Made } });
      }
    });
  };
  const wrong = fieldErrors(error);
  return (
    <Frame title="Create an account">
      <form class="stack" onSubmit={submit}>
        <Field label="Full name" name="fullName" autocomplete="name" required autoFocus error={wrong['fullName']} />
        <Field label="User name" name="userName" autocomplete="username" required spellcheck={false} autocapitalize="none" hint="Part of the address of your functions: /run/user-name/function" error={wrong['userName']} />
        <Field label="Email" name="email" type="email" autocomplete="email" required error={wrong['email']} />
        <Field label="Password" name="password" type="password" autocomplete="new-password" required hint="A few words make a good one." error={wrong['password']} />
        {Object.keys(wrong).length === 0 && <Failure error={error} />}
        <Button type="submit" tone="primary" busy={busy} class="wide">Create account</Button>
      </form>
      <p class="muted">Have an account? <Link href="/login">Sign in</Link></p>
    </Frame>
  );
}
