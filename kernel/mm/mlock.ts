// mm/mlock.c: mlock, munlock, mlockall, munlockall, 6.18. VMAs get VM_LOCKED under mmap_lock for
// write, which moves the pages they map to the unevictable list; then, with the lock dropped, what
// is not there yet is faulted in. RLIMIT_MEMLOCK is not looked at: traces come from callers who
// were let.

import type {Code} from '../../machine/process.ts';
import {PTE_HUGE, PTE_KIND, PTE_PRESENT, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import {PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {EAGAIN, EFAULT, EINTR, EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lru_add_drain} from './folio_lru.ts';
import {next_settled} from './memory_pte.ts';
import {mlock_folios, munlock_folios} from './mlock_folio.ts';
import {mergeRule, mm_populate} from './mmap.ts';
import {enterSystemCall, mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {compound_head, folio_nr_pages} from './page.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGETLB, VM_LOCKED, VM_LOCKONFAULT, VM_SPECIAL} from './vma_flags.ts';
import {vma_adjust_trans_huge} from './vma_huge.ts';
import {vma_start_write, vma_start_write_near} from './vma_lock.ts';
import {vma_modify} from './vma_merge.ts';
import {DEFAULT_MAX_MAP_COUNT} from './vma_space.ts';

export const MLOCK_ONFAULT = 1;
export const MCL_CURRENT = 1;
export const MCL_FUTURE = 2;
export const MCL_ONFAULT = 4;

const LOCK_FLAGS = VM_LOCKED | VM_LOCKONFAULT;

/**
 * mlock and mlock2 (`flags`: MLOCK_ONFAULT): 0, -ENOMEM (hole, too many VMAs), -EAGAIN, -EINVAL.
 */
export function* do_mlock(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  flags = 0,
): Code<number> {
  enterSystemCall(k, t);
  if ((flags & ~MLOCK_ONFAULT) !== 0) return -EINVAL;
  const user = k.mm.userOf(t.mm!);
  const vm = flags === 0 ? VM_LOCKED : LOCK_FLAGS;
  const result = yield* lockRange(k, t, user, startVpn, startVpn + pages, vm);
  if (result !== 0) return result;
  if (flags !== 0) return 0;
  return __mlock_posix_error_return(yield* mm_populate(k, t, user, startVpn, startVpn + pages));
}

/** munlock: 0 or -ENOMEM. */
export function* do_munlock(k: Kernel, t: Task, startVpn: number, pages: number): Code<number> {
  enterSystemCall(k, t);
  const user = k.mm.userOf(t.mm!);
  return yield* lockRange(k, t, user, startVpn, startVpn + pages, 0);
}

/** mlockall: MCL_ bits. 0 or -EINVAL; what cannot be locked stays as it is. */
export function* do_mlockall(k: Kernel, t: Task, flags: number): Code<number> {
  enterSystemCall(k, t);
  const known = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
  if (flags === 0 || flags === MCL_ONFAULT || (flags & ~known) !== 0) return -EINVAL;
  const user = k.mm.userOf(t.mm!);
  const vm = (flags & MCL_ONFAULT) === 0 ? VM_LOCKED : LOCK_FLAGS;
  const {space} = user;
  if ((yield* mmap_write_lock_killable(t, user, k.mm.fns.do_mlock)) !== 0) return -EINTR;
  space.defFlags = (space.defFlags & ~LOCK_FLAGS) | ((flags & MCL_FUTURE) === 0 ? 0 : vm);
  if ((flags & MCL_CURRENT) !== 0) yield* lockAll(k, t, user, vm);
  yield* mmap_write_unlock(t, user);
  if ((flags & MCL_CURRENT) === 0 || vm !== VM_LOCKED) return 0;
  yield* mm_populate(k, t, user, 0, space.taskSize);
  return 0;
}

/** munlockall. */
export function* do_munlockall(k: Kernel, t: Task): Code<number> {
  enterSystemCall(k, t);
  const user = k.mm.userOf(t.mm!);
  if ((yield* mmap_write_lock_killable(t, user, k.mm.fns.do_mlock)) !== 0) return -EINTR;
  user.space.defFlags &= ~LOCK_FLAGS;
  yield* lockAll(k, t, user, 0);
  yield* mmap_write_unlock(t, user);
  return 0;
}

/** apply_mlockall_flags: errors of single VMAs do not count. */
function* lockAll(k: Kernel, t: Task, user: UserMm, vm: number): Code {
  const {tree} = user.space;
  for (let vma = tree.first; vma !== null; ) {
    const {start, end} = vma;
    yield* mlock_fixup(k, t, user, vma, start, end, (vma.flags & ~LOCK_FLAGS) | vm);
    vma = tree.find(end);
  }
}

/** apply_vma_lock_flags. */
function* lockRange(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  vm: number,
): Code<number> {
  const {costs, fns} = k.mm;
  t.cpu.charge(costs.adviseBaseTicks, fns.do_mlock);
  if (end <= start) return 0;
  if ((yield* mmap_write_lock_killable(t, user, fns.do_mlock)) !== 0) return -EINTR;
  let vma = user.space.tree.lookup(start);
  let result = vma === null ? -ENOMEM : 0;
  for (let at = start; result === 0 && at < end; ) {
    if (vma === null || vma.start > at) {
      result = -ENOMEM;
      break;
    }
    const to = Math.min(vma.end, end);
    const flags = (vma.flags & ~LOCK_FLAGS) | vm;
    result = yield* mlock_fixup(k, t, user, vma, at, to, flags);
    at = to;
    vma = user.space.tree.find(at);
  }
  yield* mmap_write_unlock(t, user);
  return result;
}

/** mlock_fixup: [start, end) of one VMA gets `flags`. */
function* mlock_fixup(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  flags: number,
): Code<number> {
  const {space} = user;
  const oldFlags = vma.flags;
  const immune = (oldFlags & (VM_SPECIAL | VM_HUGETLB)) !== 0;
  if (flags === oldFlags || immune || vma.ops === 'dax' || vma.ops === 'special') return 0;
  const splits = (vma.start < start ? 1 : 0) + (vma.end > end ? 1 : 0);
  if (space.mapCount + splits > DEFAULT_MAX_MAP_COUNT) return -ENOMEM;
  t.cpu.charge(k.mm.costs.modifyVmaTicks, k.mm.fns.do_mlock);
  yield* vma_start_write(k, t, user, vma);
  yield* vma_adjust_trans_huge(k, t, user, vma, start, end);
  yield* vma_start_write_near(k, t, user, vma);
  const changed = vma_modify(vma, start, end, {flags}, mergeRule(k));
  yield* vma_start_write(k, t, user, changed);
  const was = (oldFlags & VM_LOCKED) !== 0;
  const is = (flags & VM_LOCKED) !== 0;
  if (was !== is) {
    space.lockedVm += is ? end - start : start - end;
    yield* mlock_vma_pages_range(k, t, user, changed, start, end, is);
  }
  return 0;
}

/** mlock_vma_pages_range: the pages that are mapped already. */
function* mlock_vma_pages_range(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  lock: boolean,
): Code {
  const {mm} = k;
  lru_add_drain(k, t);
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (yield* next_settled(t, user, cursor)) {
    const {slot} = cursor;
    while (mm.ptl.busy(slot >>> 9)) yield* mm.ptl.spin(t, slot >>> 9, mm.fns.mlock_pte_range);
    const heads = mlock_pte_range(k, cursor, vma);
    t.cpu.charge(heads.length * mm.costs.mlockPageTicks, mm.fns.mlock_pte_range);
    if (lock) mlock_folios(k, t, heads);
    else munlock_folios(k, t, vma, heads);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/** Folios of one run that lie wholly in the VMA, each once. */
function mlock_pte_range(k: Kernel, cursor: PgtableCursor, vma: VmArea): number[] {
  const {pt, pages} = k.mm;
  const heads: number[] = [];
  let last = 0;
  for (let i = 0; i < cursor.count; i++) {
    const word = pt.flags[cursor.slot + i];
    if ((word & PTE_KIND) !== PTE_PRESENT || (word & PTE_SPECIAL) !== 0) continue;
    const pfn = pt.entries[cursor.slot + i] & 0x7fff_ffff;
    const head = compound_head(pages, pfn);
    if (head === last) continue;
    last = head;
    const n = folio_nr_pages(pages, head);
    const first = cursor.vpn + i - (pfn - head);
    const inside = first >= vma.start && first + n <= vma.end;
    if (n === 1 || (word & PTE_HUGE) !== 0 || inside) heads.push(head);
  }
  return heads;
}

/** What mm_populate's errors are called in mlock(2). */
function __mlock_posix_error_return(result: number): number {
  if (result === -EFAULT) return -ENOMEM;
  return result === -ENOMEM ? -EAGAIN : result;
}
