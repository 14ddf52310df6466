// include/linux/mmap_lock.h: mmap_lock and the VMA locks that end with it, as the callers of mm use
// them. Giving the lock up for write, or downgrading it, unlocks every VMA that was write-locked
// under it (6.4+). The lock is a rwsem: locking/rwsem.ts says what waiting for it costs.

import type {Code} from '../../machine/process.ts';
import {EINTR} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Acquisition} from '../locking/lockdep.ts';
import {SLEEPING} from '../locking/sleeping_lock.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {UserMm} from './user_mm.ts';
import {vma_end_write_all} from './vma_lock.ts';

/** SINGLE_DEPTH_NESTING: the child's lock under the parent's in dup_mmap. */
export const NESTED: Acquisition = Object.freeze({sleeping: true, subclass: 1});

/** mmap_write_lock; `fn` is the kernel function that asks. */
export function* mmap_write_lock(t: Task, user: UserMm, fn: number, how = SLEEPING): Code {
  const {mmapLock} = user;
  if (!mmapLock.writeAcquire(t, fn, how)) yield* mmapLock.writeAcquireSlow(t, fn);
}

/**
 * mmap_write_lock_killable: 0, or -EINTR when a fatal signal ended the wait. Up to 4.6 a wait that
 * nothing ends.
 */
export function* mmap_write_lock_killable(t: Task, user: UserMm, fn: number): Code<number> {
  const {mmapLock} = user;
  if (mmapLock.writeAcquire(t, fn)) return 0;
  return (yield* mmapLock.writeAcquireSlow(t, fn, true)) ? 0 : -EINTR;
}

/** mmap_write_unlock. */
export function* mmap_write_unlock(t: Task, user: UserMm): Code {
  vma_end_write_all(user);
  if (!user.mmapLock.writeRelease(t)) yield* user.mmapLock.writeReleaseSlow(t);
}

/** mmap_write_downgrade: the writer goes on as a reader. */
export function* mmap_write_downgrade(t: Task, user: UserMm): Code {
  vma_end_write_all(user);
  yield* user.mmapLock.downgrade(t);
}

/** mmap_read_lock. */
export function* mmap_read_lock(t: Task, user: UserMm, fn: number): Code {
  const {mmapLock} = user;
  if (!mmapLock.readAcquire(t, fn)) yield* mmapLock.readAcquireSlow(t, fn);
}

/**
 * mmap_read_lock_killable: 0, or -EINTR when a fatal signal ended the wait. `since`: the kernel in
 * which this caller's wait became one that it ends.
 */
export function* mmap_read_lock_killable(
  t: Task,
  user: UserMm,
  fn: number,
  since: string,
): Code<number> {
  const {mmapLock} = user;
  if (mmapLock.readAcquire(t, fn)) return 0;
  const killable = !isBefore(mmapLock.kernel.facts.version, since);
  return (yield* mmapLock.readAcquireSlow(t, fn, killable)) ? 0 : -EINTR;
}

/** mmap_read_unlock. */
export function* mmap_read_unlock(t: Task, user: UserMm): Code {
  if (!user.mmapLock.readRelease(t)) yield* user.mmapLock.readReleaseSlow(t);
}

/** Charges the way into a system call. */
export function enterSystemCall(k: Kernel, t: Task): void {
  t.cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
}
