// mm/mmu_notifier.c: registering and unregistering.
//
// A registration happens with every lock of the mm taken, so that no unpaired end can be seen; it
// holds mm_count. unregister runs release when that has not happened, unlinks, and waits for a
// grace period: after it no callback is running. Since 5.4 a driver may ask for "the one of this
// mm" (get/put): one registration per mm and ops, counted, freed after a grace period.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL} from '../errno.ts';
import {mmdrop, mmgrab} from '../fork_mm.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {mm_drop_all_locks, mm_take_all_locks} from './mm_all_locks.ts';
import {MmuNotifierSubscriptions, mmu_notifier_synchronize} from './mmu_notifier.ts';
import {MmuNotifier, type MmuNotifierOps} from './mmu_notifier_types.ts';
import {vma_end_write_all} from './vma_lock.ts';

/** mmu_notifier_register: takes mmap_lock for write. Returns 0, -EINTR or -EINVAL. */
export function* mmu_notifier_register(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  n: MmuNotifier,
): Code<number> {
  const user = k.mm.userOf(mm);
  const {mmapLock} = user;
  const fn = k.mm.fns.mmu_notifier_register;
  if (!mmapLock.writeAcquire(t, fn)) yield* mmapLock.writeAcquireSlow(t, fn);
  const result = yield* __mmu_notifier_register(k, t, mm, n);
  vma_end_write_all(user);
  if (!mmapLock.writeRelease(t)) yield* mmapLock.writeReleaseSlow(t);
  return result;
}

/** __mmu_notifier_register: mmap_lock is held for write. */
export function* __mmu_notifier_register(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  n: MmuNotifier,
): Code<number> {
  assert(mm.users > 0, 'notifier registered with an mm without users');
  const {ops} = n;
  const secondary = ops.invalidate_range !== undefined;
  const pair = ops.invalidate_range_start !== undefined || ops.invalidate_range_end !== undefined;
  if (k.mm.notifierFacts.secondaryTlb === 'flush' && secondary && pair) {
    k.checks.warn(`${ops.name}: secondary_tlbs together with start/end is refused (-EINVAL)`);
    return -EINVAL;
  }
  const user = k.mm.userOf(mm);
  const fresh = user.notifierSubscriptions ?? new MmuNotifierSubscriptions();
  const locks = yield* mm_take_all_locks(k, t, mm);
  if (locks === null) return -EINTR;
  user.notifierSubscriptions = fresh;
  n.mm = mm;
  fresh.list.unshift(n);
  yield* mm_drop_all_locks(k, t, locks);
  yield* mmgrab(k, t, mm);
  return 0;
}

/** mmu_notifier_unregister. Not to be called from a callback: it waits for the callbacks. */
export function* mmu_notifier_unregister(k: Kernel, t: Task, n: MmuNotifier): Code {
  const {mm} = n;
  assert(mm !== null, 'notifier unregistered twice');
  const {list} = mm.user!.notifierSubscriptions!;
  if (list.includes(n)) {
    const {srcu} = k.mm;
    const id = srcu.readLock();
    if (n.ops.release !== undefined) yield* n.ops.release(n, t);
    srcu.readUnlock(id);
    const at = list.indexOf(n);
    if (at >= 0) list.splice(at, 1);
  }
  yield* mmu_notifier_synchronize(k, t);
  n.mm = null;
  yield* mmdrop(k, t, mm);
}

/**
 * mmu_notifier_get (5.4+): the mm's notifier with these ops, made and registered when there is
 * none. Null: it failed.
 */
export function* mmu_notifier_get(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  ops: MmuNotifierOps,
  context: () => object,
): Code<MmuNotifier | null> {
  const found = mm.user?.notifierSubscriptions?.list.find((n) => n.ops === ops);
  if (found !== undefined) {
    found.users++;
    return found;
  }
  const n = new MmuNotifier(ops, context());
  return (yield* mmu_notifier_register(k, t, mm, n)) === 0 ? n : null;
}

/**
 * mmu_notifier_put: the last user unlinks it at once and frees it after a grace period, without
 * waiting for that.
 */
export function* mmu_notifier_put(k: Kernel, t: Task, n: MmuNotifier): Code {
  assert(n.users > 0 && n.mm !== null, 'notifier put too often');
  if (--n.users > 0) return;
  const {mm} = n;
  const {list} = mm.user!.notifierSubscriptions!;
  const at = list.indexOf(n);
  if (at >= 0) list.splice(at, 1);
  n.mm = null;
  yield* mmdrop(k, t, mm);
}
