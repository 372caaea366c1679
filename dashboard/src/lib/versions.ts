import type { DeployStatus, EnvNames, Version } from './api';

/** Whether it was built and calls go to another one: then they may go to it. A superseded one never served. */
export const canServe = ({ active, status }: Pick<Version, 'active' | 'status'>) => !active && (status === 'active' || status === 'superseded');

/** Why no call sees a change of the environment, if none does. */
export function unseen({ version, status, deployError }: Omit<EnvNames, 'names'>): string | undefined {
  if (status === 'failed') return `The function does not load with that: ${deployError?.message ?? 'see its log'}. The version before goes on answering.`;
  if (status === 'superseded') return `Version ${version} has the change but is not served: a newer version or a rollback came first. Save it again, or roll back to version ${version}.`;
  return undefined;
}

/** How far a deploy is, in a heading. */
export function stage(version: number, status: DeployStatus, activeVersion: number | null | undefined): string {
  if (status === 'failed') return 'The deploy failed';
  if (status !== 'active') return `Deploying version ${version}`;
  if (activeVersion === version) return `Version ${version} is live`;
  const first = (activeVersion ?? 0) < version ? `a rollback to version ${activeVersion}` : `version ${activeVersion}`;
  return `Version ${version} is not served: ${first} came first`;
}
