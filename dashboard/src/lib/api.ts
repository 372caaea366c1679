// What the API says and how it is asked. The session is an HttpOnly cookie: no script sees it.

export type DeployStatus = 'pending' | 'deploying' | 'active' | 'failed';
/** Of a version; superseded: built, but a newer one or a rollback came first. */
export type VersionStatus = DeployStatus | 'superseded';
export type Visibility = 'private' | 'public';
export type Scope = 'invoke' | 'deploy' | 'read';
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface User {
  id: string;
  fullName: string;
  userName: string;
  email: string;
  createdAt: string;
}

export interface DeployError {
  code: string;
  message: string;
}

export interface Limits {
  timeoutMs: number;
  memoryMb: number;
  concurrency: number;
  [name: string]: unknown;
}

export interface Fn {
  id: string;
  name: string;
  userName: string;
  status: DeployStatus;
  deployError: DeployError | null;
  version: number;
  activeVersion: number | null;
  bundleBytes: number | null;
  dependencyCache: 'hit' | 'miss' | null;
  handlerKind: string | null;
  endpoint: string;
  url: string | null;
  visibility: Visibility;
  limits: Limits;
  envNames: string[];
  dependencies: Record<string, string>;
  stats: { executed: number; errors: number; avgLatency: number; avgMemory: number };
  createdAt: string;
  updatedAt: string;
  deployedAt: string | null;
}

export interface Source {
  entry: string;
  files: Record<string, string>;
  binaryFiles?: string[];
}

export interface FnWithSource extends Fn {
  source: Source;
}

export interface Version {
  version: number;
  status: VersionStatus;
  deployError: DeployError | null;
  sourceHash: string;
  bundleHash: string | null;
  depHash: string | null;
  createdAt: string;
  active: boolean;
}

export interface LogLine {
  level: LogLevel;
  message: string;
  timestamp: string;
}

export interface LogRow {
  functionId: string;
  executionId: string;
  logs: LogLine[];
  duration: number;
  memoryUsed: number;
  status: 'success' | 'error';
  truncated: boolean;
  timestamp: string;
}

export interface Totals {
  executed: number;
  errors: number;
  cold: number;
  durationMs: number;
  cpuMs: number;
  gbSeconds: number;
}

export interface SeriesPoint {
  timestamp: string;
  executed: number;
  errors: number;
  cold: number;
  p50: number | null;
  p99: number | null;
  memory: number | null;
}

export interface Series {
  stepMs: number;
  /** Older calls than this were too many to be counted one by one. */
  completeFrom: string | null;
  overall: { p50: number | null; p99: number | null };
  points: SeriesPoint[];
}

export interface ApiKey {
  id: string;
  key?: string;
  name: string;
  prefix: string;
  scopes: Scope[];
  /** Ids of the functions it is for; none means all. */
  functions: string[];
  expiresAt: string | null;
  lastUsedAt?: string | null;
  createdAt: string;
}

/** Something that was done to the account or what belongs to it. */
export interface AuditEntry {
  id: string;
  actor: 'session' | 'apiKey' | 'operator';
  apiKeyId: string | null;
  action: string;
  subject: string | null;
  detail: string;
  timestamp: string;
}

export interface Invocation {
  status: number;
  headers: [string, string][];
  body: string;
  bodyEncoding: 'utf8' | 'base64';
  truncated: boolean;
  durationMs: number;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Record<string, string> = {},
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** Called when the session has ended, wherever that is noticed. */
export const session = { onEnd: () => {} };

interface Options {
  method?: string;
  body?: unknown;
  signal?: AbortSignal;
}

async function call<T>(path: string, { method = 'GET', body, signal }: Options = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      credentials: 'same-origin',
      ...(signal && { signal }),
      ...(body !== undefined && {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, 'unreachable', 'The server cannot be reached. Is it running?');
  }
  if (response.status === 204) return undefined as T;
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok && answer === null) {
    signal?.throwIfAborted();
    throw new ApiError(0, 'unreachable', 'The answer of the server did not arrive whole. Try again.');
  }
  if (response.ok) return answer as T;
  const { error } = (answer ?? {}) as { error?: { code: string; message: string; details?: Record<string, string> } };
  if (response.status === 401 && error?.code === 'unauthorized' && path !== '/api/auth/me') session.onEnd();
  throw new ApiError(
    response.status,
    error?.code ?? 'unexpected',
    error?.message ?? `The server answered ${response.status}.`,
    error?.details,
    Number(response.headers.get('retry-after')) || null,
  );
}

const of = (id: string) => `/api/function/${encodeURIComponent(id)}`;

function query(parameters: Record<string, string | number | undefined>): string {
  const set = Object.entries(parameters).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)]],
  );
  return set.length ? `?${new URLSearchParams(set)}` : '';
}

export interface DeployBody {
  files?: Record<string, string>;
  entry?: string;
  dependencies?: Record<string, string>;
  visibility?: Visibility;
  limits?: Partial<Limits>;
}

/** A bound and how much of it is used; `null` is no bound. */
export interface Allowance {
  limit: number | null;
  used: number;
  resetsAt: string | null;
}

export interface Quota {
  callsPerDay: Allowance;
  gbSecondsPerMonth: Allowance;
  ratePerSecond: { limit: number | null };
  apiKeys: Allowance;
  /** Older servers, which may answer while an installation is upgraded, do not tell these. */
  functions?: Allowance;
  storedBytes?: Allowance;
  concurrency: { limit: number | null };
}

export interface EnvNames {
  names: string[];
  version?: number;
  status?: VersionStatus;
  deployError?: DeployError | null;
}

const PAGE = 100;
const AUDIT_PAGE = 25;
/** Pages read of the list of functions: a bound, not a promise. */
const MAX_PAGES = 20;

export const api = {
  async me(): Promise<User | null> {
    try {
      return (await call<{ user: User }>('/api/auth/me')).user;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return null;
      throw error;
    }
  },
  login: (who: string, password: string) =>
    call<{ user: User }>('/api/auth/login', {
      method: 'POST',
      body: { [who.includes('@') ? 'email' : 'userName']: who, password },
    }),
  register: (body: { fullName: string; userName: string; email: string; password: string }) =>
    call<{ user: User }>('/api/auth/register', { method: 'POST', body }),
  logout: () => call<void>('/api/auth/logout', { method: 'POST' }),

  async functions(): Promise<Fn[]> {
    const all: Fn[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const answer = await call<{ functions: Fn[]; nextCursor: string | null }>(
        `/api/function${query({ limit: PAGE, cursor })}`,
      );
      all.push(...answer.functions);
      if (!answer.nextCursor) break;
      cursor = answer.nextCursor;
    }
    return all;
  },
  function: (id: string) => call<FnWithSource>(of(id)),
  deploy: (name: string, body: DeployBody) =>
    call<Fn>('/api/function/deploy', { method: 'POST', body: { name, ...body } }),
  update: (id: string, body: DeployBody) => call<Fn>(of(id), { method: 'PUT', body }),
  redeploy: (id: string, refresh: boolean) =>
    call<Fn>(`${of(id)}/redeploy${query({ refreshDependencies: refresh ? 'true' : undefined })}`, { method: 'POST' }),
  remove: (id: string) => call<void>(of(id), { method: 'DELETE' }),
  versions: (id: string) => call<Version[]>(`${of(id)}/versions`),
  /** The function as the deploy of this version has left it so far. */
  deployed: (id: string, version: number) => call<Fn>(`${of(id)}/versions/${version}/deploy`),
  versionSource: (id: string, version: number) =>
    call<{ version: number; source: Source }>(`${of(id)}/versions/${version}`),
  rollback: (id: string, version: number) =>
    call<unknown>(`${of(id)}/rollback`, { method: 'POST', body: { version } }),
  invoke: (
    id: string,
    body: { method: string; path: string; headers: Record<string, string>; body?: string },
    signal: AbortSignal,
  ) => call<Invocation>(`${of(id)}/invoke`, { method: 'POST', body, signal }),

  env: (id: string) => call<EnvNames>(`${of(id)}/env`),
  patchEnv: (id: string, body: { set?: Record<string, string>; unset?: string[] }) =>
    call<EnvNames>(`${of(id)}/env`, { method: 'PATCH', body }),

  logs: (id: string, parameters: { limit?: number; after?: string; executionId?: string } = {}) =>
    call<{ logs: LogRow[]; next: string | null }>(`/api/logs/${encodeURIComponent(id)}${query(parameters)}`),
  logStream: (id: string) => `/api/logs/${encodeURIComponent(id)}?follow=true`,

  usage: async (parameters: { functionId?: string; from?: string; to?: string } = {}) =>
    (await call<{ totals: Totals }>(`/api/usage${query(parameters)}`)).totals,
  days: async (parameters: { functionId?: string; from?: string }) =>
    (await call<{ days: (Totals & { day: string })[] }>(`/api/usage${query({ ...parameters, groupBy: 'day' })}`)).days,
  series: (parameters: { functionId?: string | undefined; from: string; to: string; points: number }) =>
    call<Series>(`/api/usage/series${query(parameters)}`),

  keys: async () => (await call<{ apiKeys: ApiKey[] }>('/api/apikeys')).apiKeys,
  createKey: (body: { name: string; scopes: Scope[]; functions: string[]; expiresAt?: string }) =>
    call<ApiKey>('/api/apikeys', { method: 'POST', body }),
  revokeKey: (id: string) => call<void>(`/api/apikeys/${encodeURIComponent(id)}`, { method: 'DELETE' }),

  audit: (cursor?: string) =>
    call<{ entries: AuditEntry[]; nextCursor: string | null }>(`/api/account/audit${query({ limit: AUDIT_PAGE, cursor })}`),

  quota: () => call<Quota>('/api/account/quota'),
};
