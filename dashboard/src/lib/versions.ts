import type { Version } from './api';

/** Whether it was built and calls go to another one: then they may go to it. A superseded one never served. */
export const canServe = ({ active, status }: Pick<Version, 'active' | 'status'>) => !active && (status === 'active' || status === 'superseded');
