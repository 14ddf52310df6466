// mm_take_all_locks (mm/vma.c, before 6.10 mm/mmap.c): every lock under which page tables of an mm
// can change, so that a notifier can be linked when no invalidation is half way. mmap_lock is held
// for write; then, under mm_all_locks_mutex: all VMA locks (6.4+), the i_mmap locks of all mapped
// files (hugetlbfs first), the locks of all anon_vma roots, each once.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {VmArea} from './vma.ts';
import {vma_start_write} from './vma_lock.ts';

/** down_write_nest_lock: mm_all_locks_mutex orders them, not their class. */
const NESTED = {trylock: true, sleeping: true} as const;

/** Returns the locks taken, for mm_drop_all_locks; null (-EINTR) when the task is being killed. */
export function* mm_take_all_locks(k: Kernel, t: Task, mm: MmStruct): Code<RwSemaphore[] | null> {
  const state = k.mm;
  const user = state.userOf(mm);
  const fn = state.fns.mm_take_all_locks;
  const {allLocksMutex} = state;
  if (!allLocksMutex.acquire(t, fn)) yield* allLocksMutex.acquireSlow(t, fn);
  const vmas: VmArea[] = [];
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) vmas.push(vma);
  for (const vma of vmas) yield* vma_start_write(k, t, user, vma);
  const taken: RwSemaphore[] = [];
  const wanted = (hugetlb: boolean): RwSemaphore[] =>
    vmas
      .filter(({mapping}) => mapping !== null && (mapping.host === 'hugetlb') === hugetlb)
      .map(({mapping}) => state.iMmapLock(mapping!));
  const anon = vmas.flatMap((vma) => rootLocks(k, vma));
  for (const lock of new Set([...wanted(true), ...wanted(false), ...anon])) {
    if (t.sigkill) {
      yield* mm_drop_all_locks(k, t, taken);
      return null;
    }
    if (!lock.writeAcquire(t, fn, NESTED)) yield* lock.writeAcquireSlow(t, fn);
    taken.push(lock);
  }
  return taken;
}

/** Locks of the roots of all anon_vmas that the VMA is in. */
function rootLocks(k: Kernel, vma: VmArea): RwSemaphore[] {
  return k.mm.anon.chainOf(vma).map((anon) => k.mm.anonVmaLock(anon));
}

/** mm_drop_all_locks. */
export function* mm_drop_all_locks(k: Kernel, t: Task, taken: readonly RwSemaphore[]): Code {
  for (const lock of taken) if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  const {allLocksMutex} = k.mm;
  if (!allLocksMutex.release(t)) yield* allLocksMutex.releaseSlow(t);
}
