// The small parts that screens are made of.

import { Check, Copy, type LucideIcon } from 'lucide-preact';
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { ApiError, type DeployStatus } from '../lib/api';
import { ago, full } from '../lib/format';
import { messageOf } from '../lib/store';

type Props = { children?: ComponentChildren };

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="currentColor" />
      <path class="bolt" d="M17.6 6 8.5 17.6h6.1L13.2 26l9.3-12.1h-6.3z" />
    </svg>
  );
}

type ButtonProps = JSX.IntrinsicElements['button'] & {
  tone?: 'primary' | 'plain' | 'quiet' | 'danger';
  icon?: LucideIcon;
  busy?: boolean;
};

export function Button({ tone = 'plain', icon: Icon, busy = false, children, class: extra, ...rest }: ButtonProps) {
  return (
    <button type="button" {...rest} class={`button ${tone} ${extra ?? ''}`} disabled={rest.disabled || busy} aria-busy={busy}>
      {busy ? <span class="spinner" aria-hidden="true" /> : Icon && <Icon size={15} aria-hidden="true" />}
      {children !== undefined && <span>{children}</span>}
    </button>
  );
}

/** A button of one icon; its name is read aloud and shown on hover. */
export function IconButton({ label, icon: Icon, ...rest }: JSX.IntrinsicElements['button'] & { label: string; icon: LucideIcon }) {
  return (
    <button type="button" {...rest} class={`icon-button ${rest.class ?? ''}`} aria-label={label} title={label}>
      <Icon size={16} aria-hidden="true" />
    </button>
  );
}

async function copy(text: string, button: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text, button);
  }
}

/** Outside of secure contexts, `http://` of another machine, browsers have no clipboard: what is selected
 * is copied. It has to be beside the button: a dialog keeps all else of the page out of reach. */
function copySelected(text: string, button: HTMLElement): boolean {
  const field = document.createElement('textarea');
  field.className = 'visually-hidden';
  field.value = text;
  button.after(field);
  field.select();
  const done = document.execCommand('copy');
  field.remove();
  button.focus();
  return done;
}

export function CopyButton({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [said, setSaid] = useState('');
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(''), 1_500);
    return () => clearTimeout(timer);
  }, [said]);
  const run = async (button: HTMLElement) => setSaid((await copy(text, button)) ? 'Copied' : 'This browser does not copy');
  return (
    <>
      <IconButton label={said || label} icon={said === 'Copied' ? Check : Copy} onClick={({ currentTarget }) => void run(currentTarget)} />
      <span class="visually-hidden" role="status">{said}</span>
    </>
  );
}

const STATUS: Record<DeployStatus, string> = {
  pending: 'Queued',
  deploying: 'Building',
  active: 'Live',
  failed: 'Failed',
};

export function Status({ status, activeVersion }: { status: DeployStatus; activeVersion?: number | null }) {
  // A failed or running deploy changes nothing that is served.
  const serves = status !== 'active' && activeVersion ? `, v${activeVersion} is live` : '';
  return (
    <span class={`status ${status}`}>
      <span class="dot" aria-hidden="true" />
      {STATUS[status]}
      {serves && <span class="muted">{serves}</span>}
    </span>
  );
}

export function Time({ at }: { at: string }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 15_000);
    return () => clearInterval(timer);
  }, []);
  return <time dateTime={at} title={full(at)}>{ago(at)}</time>;
}

type FieldProps = JSX.IntrinsicElements['input'] & { label: string; hint?: ComponentChildren; error?: string | undefined };

export function Field({ label, hint, error, ...rest }: FieldProps) {
  const id = useId();
  const described = [hint ? `${id}-hint` : '', error ? `${id}-error` : ''].filter(Boolean).join(' ');
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input {...rest} id={id} aria-invalid={Boolean(error)} {...(described && { 'aria-describedby': described })} />
      {error && <p class="field-error" id={`${id}-error`}>{error}</p>}
      {hint && !error && <p class="hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  );
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  if (!error) return null;
  return (
    <div class="notice bad" role="alert">
      <p>{messageOf(error)}</p>
      {retry && <Button onClick={retry}>Try again</Button>}
    </div>
  );
}

/** What the API said of one field, as a sentence. */
export function fieldErrors(error: unknown): Record<string, string> {
  if (!(error instanceof ApiError)) return {};
  return Object.fromEntries(
    Object.entries(error.details).map(([field, wrong]) => [field, `This ${String(wrong)}.`]),
  );
}

export function Empty({ icon: Icon, title, children }: Props & { icon: LucideIcon; title: string }) {
  return (
    <div class="empty">
      <span class="empty-icon"><Icon size={20} aria-hidden="true" /></span>
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Card({ title, action, children, class: extra }: Props & { title?: ComponentChildren; action?: ComponentChildren; class?: string }) {
  return (
    <section class={`card ${extra ?? ''}`}>
      {title && (
        <header class="card-head">
          <h2>{title}</h2>
          {action}
        </header>
      )}
      {children}
    </section>
  );
}

/** Grey bars where content will be, after a moment: what comes at once does not flicker. */
export function Loading({ rows = 4 }: { rows?: number }) {
  return (
    <div class="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, row) => <span class="bar" key={row} />)}
    </div>
  );
}

/** What the tab of the browser, its history and screen readers call the page. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · CloudServe`;
  }, [title]);
}

export function PageHead({ title, children, sub }: Props & { title: string; sub?: ComponentChildren }) {
  useTitle(title);
  return (
    <header class="page-head">
      <div class="page-title">
        <h1>{title}</h1>
        {sub && <p class="muted">{sub}</p>}
      </div>
      {children && <div class="actions">{children}</div>}
    </header>
  );
}

interface DialogProps extends Props {
  title: string;
  open: boolean;
  onClose: () => void;
  class?: string;
  /** A click beside it does not close it: what it shows is shown once. */
  stays?: boolean;
}

/** The browser's own modal dialog: it keeps the focus and closes on Escape. */
export function Dialog({ title, open, onClose, children, class: extra, stays = false }: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  // Who selects a text and lets go beside the dialog has not clicked there.
  const pressed = useRef<EventTarget | null>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (open && !dialog?.open) dialog?.showModal();
    if (!open && dialog?.open) dialog.close();
  }, [open]);
  return (
    <dialog
      ref={ref}
      class={extra}
      aria-labelledby={id}
      onClose={onClose}
      onPointerDown={(event) => { pressed.current = event.target; }}
      onClick={(event) => !stays && event.target === ref.current && pressed.current === ref.current && onClose()}
    >
      {open && (
        <div class="dialog-body">
          <h2 id={id}>{title}</h2>
          {children}
        </div>
      )}
    </dialog>
  );
}

interface ConfirmProps extends Props {
  title: string;
  open: boolean;
  onClose: () => void;
  action: string;
  run: () => Promise<unknown>;
  tone?: 'danger' | 'primary';
  /** What has to be typed first, for what cannot be undone. */
  typed?: string;
}

export function Confirm({ title, open, onClose, action, run, tone = 'danger', typed, children }: ConfirmProps) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [text, setText] = useState('');
  const close = () => {
    setError(undefined);
    setText('');
    onClose();
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await run();
      close();
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} open={open} onClose={close}>
      <form onSubmit={submit} class="stack">
        {children}
        {typed && (
          <Field label={`Type ${typed} to confirm`} value={text} autocomplete="off" onInput={(e) => setText(e.currentTarget.value)} />
        )}
        <Failure error={error} />
        <div class="dialog-actions">
          <Button onClick={close}>Cancel</Button>
          <Button type="submit" tone={tone} busy={busy} disabled={typed !== undefined && text !== typed}>{action}</Button>
        </div>
      </form>
    </Dialog>
  );
}

export function Segmented<T extends string>({ label, options, value, onChange }: { label: string; options: readonly (readonly [T, string])[]; value: T; onChange: (value: T) => void }) {
  return (
    <div class="segmented" role="group" aria-label={label}>
      {options.map(([option, text]) => (
        <button type="button" key={option} aria-pressed={option === value} onClick={() => onChange(option)}>{text}</button>
      ))}
    </div>
  );
}

export const Kbd = ({ children }: Props) => <kbd>{children}</kbd>;
