// mm/madvise.c: process_madvise(2) (5.10+): advice about a vector of ranges, to this or another
// process. Another process may only be told COLD, PAGEOUT, WILLNEED and COLLAPSE (6.1+); oneself,
// since 6.13, anything. What was done before an error counts: the answer is then the bytes done.

import type {Code} from '../../machine/process.ts';
import {EBADF, EINVAL, ENOSYS, ESRCH} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {madvise_mm} from './madvise.ts';
import {
  isKnownAdvice,
  MADV_COLD,
  MADV_COLLAPSE,
  MADV_PAGEOUT,
  MADV_WILLNEED,
} from './madvise_numbers.ts';
import {enterSystemCall} from './mmap_lock.ts';

const PAGE_BYTES = 4096;
const UIO_MAXIOV = 1024;

/** One range of the vector, in bytes. */
export interface IoVec {
  readonly addr: number;
  readonly len: number;
}

/** process_madvise_remote_valid. */
function process_madvise_remote_valid(version: string, advice: number): boolean {
  if (advice === MADV_COLLAPSE) return !isBefore(version, '6.1');
  return advice === MADV_COLD || advice === MADV_PAGEOUT || advice === MADV_WILLNEED;
}

/**
 * process_madvise: bytes advised, or -EINVAL (flags, too many elements, advice), -EBADF (`pid`
 * negative: no such descriptor), -ESRCH (the process is gone), or what madvise says of the first
 * element. `pid`: the process that the pidfd refers to.
 */
export function* process_madvise(
  k: Kernel,
  t: Task,
  pid: number,
  vector: readonly IoVec[],
  vlen: number,
  advice: number,
  flags: number,
): Code<number> {
  enterSystemCall(k, t);
  const {version} = k.facts;
  if (isBefore(version, '5.10')) return -ENOSYS;
  if (flags !== 0 || vlen < 0 || vlen > UIO_MAXIOV) return -EINVAL;
  if (pid < 0) return -EBADF;
  const target = k.taskList.find(pid);
  if (target === null || target.mm === null) return -ESRCH;
  const self = target.mm === t.mm;
  const anything = self && !isBefore(version, '6.13');
  if (!isKnownAdvice(version, advice)) return -EINVAL;
  if (!anything && !process_madvise_remote_valid(version, advice)) return -EINVAL;
  const user = k.mm.userOf(target.mm);
  let done = 0;
  for (const {addr, len} of vector.slice(0, vlen)) {
    if (addr % PAGE_BYTES !== 0) return done > 0 ? done : -EINVAL;
    const pages = Math.ceil(len / PAGE_BYTES);
    const result = yield* madvise_mm(k, t, user, addr / PAGE_BYTES, pages, advice);
    if (result !== 0) return done > 0 ? done : result;
    done += len;
  }
  return done;
}
