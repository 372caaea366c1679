// Questions to the API and their cached answers, by key.

import { QueryClient, queryOptions, useInfiniteQuery, useMutation, useQuery, useQueryClient } from '@tanstack/preact-query';
import { ApiError, api, type User, type Version } from './api';
import { discardAll } from './drafts';

export const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (failures, error) => !(error instanceof ApiError && error.status >= 400 && error.status < 500) && failures < 2,
    },
  },
});

export const isBuilding = (of: Pick<Version, 'status'>) => of.status === 'pending' || of.status === 'deploying';

/** How soon to look again: quickly while something is on its way, never behind a hidden tab. */
const BUSY_MS = 400;
const CALM_MS = 5_000;

let last: string | undefined;

/** Who is signed in. Somebody else than the last one finds nothing of theirs. */
async function whoIsThere(): Promise<User | null> {
  const user = await api.me();
  if (user) {
    if (last !== undefined && last !== user.id) {
      discardAll();
      removeAllButMe();
    }
    last = user.id;
  }
  return user;
}

const me = { queryKey: ['me'], queryFn: whoIsThere };

/** Asked again when one comes back: another tab may have signed somebody else in. */
export const useMe = () => useQuery({ ...me, staleTime: Infinity, refetchOnWindowFocus: 'always' });
/** What the cookie says counts, not what a form or a page believes. */
export const askWho = () => client.fetchQuery({ ...me, staleTime: 0 });

export const useFunctions = () =>
  useQuery({
    queryKey: ['functions'],
    queryFn: api.functions,
    refetchInterval: ({ state }) => (state.data?.some(isBuilding) ? 1_000 : CALM_MS),
  });

export const useFunction = (id: string) =>
  useQuery({
    queryKey: ['function', id],
    queryFn: () => api.function(id),
    refetchInterval: ({ state }) => (state.data && isBuilding(state.data) ? BUSY_MS : CALM_MS),
  });

/**
 * Of one version: the function itself tells of the newest, which may wait behind it. How it ended is told
 * once: what comes to be served later did not come first.
 */
export const deployOf = (id: string, version: number) =>
  queryOptions({
    queryKey: ['deploy', id, version],
    queryFn: () => api.deployed(id, version),
    staleTime: ({ state }) => (state.data && !isBuilding(state.data) ? Infinity : 0),
    refetchInterval: ({ state }) => (!state.data ? CALM_MS : isBuilding(state.data) ? BUSY_MS : false),
  });

export const useVersions = (id: string) =>
  useQuery({
    queryKey: ['versions', id],
    queryFn: () => api.versions(id),
    refetchInterval: ({ state }) => (state.data?.some(isBuilding) ? 1_000 : false),
  });

export const useKeys = () => useQuery({ queryKey: ['keys'], queryFn: api.keys });
export const useEnv = (id: string) => useQuery({ queryKey: ['env', id], queryFn: () => api.env(id) });
export const useAudit = () =>
  useInfiniteQuery({
    queryKey: ['audit'],
    queryFn: ({ pageParam }) => api.audit(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: ({ nextCursor }) => nextCursor ?? undefined,
  });
export const useQuota = () => useQuery({ queryKey: ['quota'], queryFn: api.quota, retry: false });

/** Nobody is signed in any more: what was known belongs to somebody else. */
export function forget(): void {
  client.setQueryData(['me'], null);
  removeAllButMe();
}

function removeAllButMe(): void {
  client.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== 'me' });
}

/** A session that could not be ended is still one. */
export async function signOut(): Promise<void> {
  await api.logout();
  discardAll();
  forget();
}

/** Asks again what a change of this function may have changed. */
export function useRefresh() {
  const queries = useQueryClient();
  return (id?: string) => {
    const keys = [['functions'], ...(id ? [['function', id], ['versions', id], ['env', id]] : [])];
    return Promise.all(keys.map((queryKey) => queries.invalidateQueries({ queryKey })));
  };
}

export { useMutation, useQuery, useQueryClient };

export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
