// MADV_ numbers and since which kernel each is known (include/uapi/asm-generic/mman-common.h).

import {isBefore} from '../version.ts';

export const MADV_NORMAL = 0;
export const MADV_RANDOM = 1;
export const MADV_SEQUENTIAL = 2;
export const MADV_WILLNEED = 3;
export const MADV_DONTNEED = 4;
export const MADV_FREE = 8;
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_DOFORK = 11;
export const MADV_MERGEABLE = 12;
export const MADV_UNMERGEABLE = 13;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_DONTDUMP = 16;
export const MADV_DODUMP = 17;
export const MADV_WIPEONFORK = 18;
export const MADV_KEEPONFORK = 19;
export const MADV_COLD = 20;
export const MADV_PAGEOUT = 21;
export const MADV_POPULATE_READ = 22;
export const MADV_POPULATE_WRITE = 23;
export const MADV_DONTNEED_LOCKED = 24;
export const MADV_COLLAPSE = 25;
export const MADV_GUARD_INSTALL = 102;
export const MADV_GUARD_REMOVE = 103;

const SINCE: ReadonlyMap<number, string> = new Map([
  [MADV_NORMAL, '2.4'],
  [MADV_RANDOM, '2.4'],
  [MADV_SEQUENTIAL, '2.4'],
  [MADV_WILLNEED, '2.4'],
  [MADV_DONTNEED, '2.4'],
  [MADV_FREE, '4.5'],
  [MADV_REMOVE, '2.6.16'],
  [MADV_DONTFORK, '2.6.16'],
  [MADV_DOFORK, '2.6.16'],
  [MADV_MERGEABLE, '2.6.32'],
  [MADV_UNMERGEABLE, '2.6.32'],
  [MADV_HUGEPAGE, '2.6.38'],
  [MADV_NOHUGEPAGE, '2.6.38'],
  [MADV_DONTDUMP, '3.4'],
  [MADV_DODUMP, '3.4'],
  [MADV_WIPEONFORK, '4.14'],
  [MADV_KEEPONFORK, '4.14'],
  [MADV_COLD, '5.4'],
  [MADV_PAGEOUT, '5.4'],
  [MADV_POPULATE_READ, '5.14'],
  [MADV_POPULATE_WRITE, '5.14'],
  [MADV_DONTNEED_LOCKED, '5.18'],
  [MADV_COLLAPSE, '6.1'],
  [MADV_GUARD_INSTALL, '6.13'],
  [MADV_GUARD_REMOVE, '6.13'],
]);

/** madvise_behavior_valid: does kernel `version` know the advice? */
export function isKnownAdvice(version: string, advice: number): boolean {
  const since = SINCE.get(advice);
  return since !== undefined && !isBefore(version, since);
}
