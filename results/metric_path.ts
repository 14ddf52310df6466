// One number of a run's report, by its path: `locks.pgd_lock.wait_ns_by_caller.pgd_alloc`.

import {UserError} from './errors.ts';
import type {RunReport} from './run.ts';

/**
 * The number at `path`; 0 where the report has no such lock, caller or counter. Throws UserError
 * for a group that no report has.
 */
export function metricAt(report: RunReport, path: string): number {
  let value: unknown = report;
  path.split('.').forEach((part, depth) => {
    if (typeof value === 'object' && value !== null && Object.hasOwn(value, part)) {
      value = (value as Record<string, unknown>)[part];
    } else if (depth === 0) {
      throw new UserError(`metric ${path}: a report has no ${part}; see the run schema`);
    } else {
      value = 0;
    }
  });
  if (typeof value === 'number') return value;
  throw new UserError(`metric ${path}: names a group, not a number; see the run schema`);
}
