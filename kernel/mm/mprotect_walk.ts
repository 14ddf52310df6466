// mm/mprotect.c: the walk of change_protection, in its three generations (axis
// `mprotect`). They differ in what a notifier is told:
//   per-call  up to 3.14    one pair over the whole range, whatever is in it
//   per-pud   3.15 to 6.11 a pair per PUD entry (1 GB), sent at its first populated PMD, from there
//                           to the end of that entry's part of the range
//   per-p4d   6.12+         a pair per P4D entry (512 GB), sent at its first populated PUD
// A range without page tables sends nothing in the later two.
//
// "Already sent" is tested as range.start != 0. For a mapping at address 0 the test stays false:
// the start is sent again at the next populated entry, and while the last one sent began at 0 there
// is no end. Reachable only with vm.mmap_min_addr 0; kept as it is.
//
// The CPUs' TLBs are flushed once, after the walk and so after the last end: by the caller's gather
// since 5.19, before that here, over the whole range. Only per-call flushes before its end.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, nextAt, pteValue} from '../arch/x86/mm/pgtable.ts';
import {is_migration_entry, PTE_PRESENT, PTE_PROTNONE} from '../arch/x86/mm/pgtable_bits.ts';
import {firstPopulated, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {change_huge_pud, pudLeafSlot} from './huge_memory_pud.ts';
import {next_settled, pte_lock, pte_unlock} from './memory_pte.ts';
import {MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_PROTECTION_VMA, MmuNotifierRange} from './mmu_notifier_types.ts';
import {
  change_huge_entry,
  change_pte_range,
  MM_CP_PROT_NUMA,
  MM_CP_TRY_CHANGE_WRITABLE,
  MM_CP_UFFD_WP,
  MM_CP_UFFD_WP_RESOLVE,
  type ProtectionChange,
  prot_numa_skip,
  vma_soft_dirty_enabled,
} from './mprotect_ptes.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_ACCESS, VM_HUGETLB, VM_SHARED, VM_UFFD_WP, VM_WRITE} from './vma_flags.ts';

const SITE = 'change_protection';

/** vma_wants_writenotify: the first write to each page of a shared mapping must fault. */
export function vma_wants_writenotify(vma: VmArea): boolean {
  if ((vma.flags & (VM_WRITE | VM_SHARED)) !== (VM_WRITE | VM_SHARED)) return false;
  if (vma_soft_dirty_enabled(vma) && vma.mapping !== null) return true;
  if (vma.uffd !== 0 && (vma.flags & VM_UFFD_WP) !== 0) return true;
  return vma.ops === 'file' || (vma.ops === 'dax' && vma.mapping?.dax?.kind !== 'device');
}

/**
 * change_protection of [start, end) of `vma`, whose flags are the new ones already; `oldFlags` were
 * those before. `tlb` is the caller's gather, null before 5.19. Returns the number of pages
 * changed. Caller holds mmap_lock: for write (mprotect) or for read (NUMA hinting, userfaultfd).
 */
export function* change_protection(
  k: Kernel,
  t: Task,
  tlb: MmuGather | null,
  vma: VmArea,
  start: number,
  end: number,
  cpFlags: number,
  oldFlags: number,
): Code<number> {
  const user = k.mm.byId(vma.space.mmId)!;
  const {hugetlb_change_protection} = k.mm.hooks;
  if ((vma.flags & VM_HUGETLB) !== 0) {
    if (hugetlb_change_protection === null) return 0;
    return yield* hugetlb_change_protection(t, vma, start, end, cpFlags);
  }
  const change = changeOf(k, t, user, tlb, vma, cpFlags, oldFlags);
  const perCall = k.design.mprotect === 'per-call';
  const whole = perCall ? protectionRange(user, vma, start, end) : null;
  if (whole !== null) yield* mmu_notifier_invalidate_range_start(k, t, whole);
  let pages = 0;
  if (perCall) {
    pages = yield* changeRange(k, t, user, change, start, end);
  } else {
    const level = k.design.mprotect === 'per-p4d' ? 3 : 2;
    for (let at = start; at < end; at = Math.min(nextAt(at, level), end)) {
      const to = Math.min(nextAt(at, level), end);
      pages += yield* changeChunk(k, t, user, change, level - 1, at, to);
    }
  }
  if (tlb === null && pages > 0) yield* flush_tlb_range(k, t, user, start, end);
  if (whole !== null) yield* mmu_notifier_invalidate_range_end(k, t, whole);
  return pages;
}

function changeOf(
  k: Kernel,
  t: Task,
  user: UserMm,
  tlb: MmuGather | null,
  vma: VmArea,
  cpFlags: number,
  oldFlags: number,
): ProtectionChange {
  const numa = (cpFlags & MM_CP_PROT_NUMA) !== 0;
  const single = numa && user.mm.users === 1;
  return {
    vma,
    cpFlags,
    tlb,
    kind: numa || (vma.flags & VM_ACCESS) === 0 ? PTE_PROTNONE : PTE_PRESENT,
    writable:
      (vma.flags & (VM_WRITE | VM_SHARED)) === (VM_WRITE | VM_SHARED) &&
      !vma_wants_writenotify(vma),
    execChanges: ((vma.flags ^ oldFlags) & 4) !== 0,
    exclusiveWrites: !isBefore(k.facts.version, '6.0'),
    notOnNode: single ? k.machine.topology.nodeOf[t.cpu.id] : -1,
  };
}

function protectionRange(user: UserMm, vma: VmArea, start: number, end: number): MmuNotifierRange {
  return new MmuNotifierRange(MMU_NOTIFY_PROTECTION_VMA, user.mm, vma, start, end, SITE);
}

/**
 * The part of the range that one P4D (PUD) entry spans: [start, end), looked at in entries of
 * `level`, one pair from the first populated of them on.
 */
function* changeChunk(
  k: Kernel,
  t: Task,
  user: UserMm,
  change: ProtectionChange,
  level: number,
  start: number,
  end: number,
): Code<number> {
  let range: MmuNotifierRange | null = null;
  let pages = 0;
  let at = firstPopulated(user.pgd, start, end, level);
  while (at >= 0) {
    // Up to 6.11 the pair comes with the first PMD, after a PUD leaf has been dealt with.
    const pair = level > 1 || pudLeafSlot(k, user, at) < 0;
    if (pair && (range === null || range.start === 0)) {
      range = protectionRange(user, change.vma, at, end);
      yield* mmu_notifier_invalidate_range_start(k, t, range);
    }
    const to = pair ? Math.min(nextAt(at, level), end) : end;
    pages += yield* changeRange(k, t, user, change, at, to);
    at = firstPopulated(user.pgd, to, end, level);
  }
  if (range !== null && range.start !== 0) yield* mmu_notifier_invalidate_range_end(k, t, range);
  return pages;
}

/** The tables of [start, end), one after the other, with cond_resched between them. */
function* changeRange(
  k: Kernel,
  t: Task,
  user: UserMm,
  change: ProtectionChange,
  start: number,
  end: number,
): Code<number> {
  const {mm} = k;
  const {costs, fns} = mm;
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  let pages = 0;
  while (yield* next_settled(t, user, cursor)) {
    if (cursor.level > 0) {
      pages += yield* changeHuge(k, t, user.mm, change, cursor, end);
      continue;
    }
    const {slot, count, vpn} = cursor;
    while (!pte_lock(mm, t, slot, fns.change_pte_range)) {
      yield* mm.ptl.spin(t, slot >>> 9, fns.change_pte_range);
    }
    const changed = change_pte_range(k, change, slot, count, vpn);
    const scan = Math.round(count * costs.scanPteTicks) + changed * costs.changePteTicks;
    t.cpu.charge(costs.changeTableTicks + scan, fns.change_pte_range);
    pte_unlock(mm, t, slot);
    pages += changed;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return pages;
}

/** A huge entry changes as a whole, or is split when the range covers a part of it. */
function* changeHuge(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  change: ProtectionChange,
  cursor: PgtableCursor,
  end: number,
): Code<number> {
  const {hooks, costs, fns} = k.mm;
  const {slot, vpn, level} = cursor;
  const span = LEVEL_PAGES[level];
  const known = level === 1 || k.design.pud !== 'mprotect-clears';
  if (known && (vpn % span !== 0 || vpn + span > end)) {
    if (hooks.split_huge === null) return 0;
    yield* hooks.split_huge(t, change.vma, slot, vpn);
    cursor.next = vpn;
    return 0;
  }
  t.cpu.charge(costs.changeTableTicks, fns.change_pte_range);
  if (level > 1) return yield* change_huge_pud(k, t, mm.user!, change, slot, vpn);
  const {pt} = k.mm;
  if ((change.cpFlags & MM_CP_PROT_NUMA) !== 0 && !is_migration_entry(pt.flags[slot])) {
    if (prot_numa_skip(k.mm, change, pt.flags[slot], pteValue(pt, slot))) return 0;
    k.mm.migration.count('numa_huge_pte_updates');
  }
  const uffd = (change.cpFlags & (MM_CP_UFFD_WP | MM_CP_UFFD_WP_RESOLVE)) !== 0;
  if (hooks.change_huge_pmd !== null && !uffd && vma_is_anonymous(change.vma)) {
    const tlb = change.tlb ?? new MmuGather(mm);
    const protNone = change.kind === PTE_PROTNONE;
    const tryWritable = (change.cpFlags & MM_CP_TRY_CHANGE_WRITABLE) !== 0;
    return hooks.change_huge_pmd(t, tlb, change.vma, slot, vpn, protNone, tryWritable);
  }
  return change_huge_entry(k, change, slot, vpn, span) ? span : 0;
}

/** flush_tlb_range, here or with the other CPUs. */
export function* flush_tlb_range(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
): Code {
  if (k.tlb.isLocal(t.cpu, user.mm)) k.tlb.flushLocal(t, user.mm, start, end, false);
  else yield* k.tlb.flush_tlb_mm_range(t, user.mm, start, end, false);
}

/** Since when mprotect gathers what needs a flush (mmu_gather), instead of flushing the range. */
export function mprotectGathers(k: Kernel): boolean {
  return !isBefore(k.facts.version, '5.19');
}

/**
 * change_prot_numa: makes pages of [start, end) fault for NUMA balancing. Caller holds mmap_lock
 * for read. Returns the number of pages changed (what task_numa_work counts as scanned).
 */
export function* change_prot_numa(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  const user = k.mm.byId(vma.space.mmId)!;
  const tlb = mprotectGathers(k) ? tlb_gather_mmu(user.mm) : null;
  const {flags} = vma;
  const pages = yield* change_protection(k, t, tlb, vma, start, end, MM_CP_PROT_NUMA, flags);
  if (tlb !== null) yield* tlb_finish_mmu(k, t, tlb);
  return pages;
}
