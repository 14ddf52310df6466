// mm/memory.c: taking mappings away (unmap_vmas, zap_page_range_single), 6.18.
//
// Page by page under the PTE table's lock: clear, remove from the rmap, hand the page to the
// mmu_gather; counters once per table, before its lock is dropped. Dirty pages of files force a
// flush before the lock is dropped; a full gather stops the loop. Pages are freed in tlb_flush_mmu,
// never before the flush.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, type UserPgd} from '../arch/x86/mm/pgtable.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {LEAF_AHEAD_TICKS} from './leaf_lock.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {ZapLoop} from './memory_zap_ptes.ts';
import {
  type MmuGather,
  tlb_finish_mmu,
  tlb_flush_mmu,
  tlb_flush_mmu_tlbonly,
  tlb_gather_mmu,
} from './mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, MmuNotifierRange} from './mmu_notifier_types.ts';
import {type LockedFolios, munlockUnmapped, noteLocked} from './mlock_folio.ts';
import type {Mm} from './mm_state.ts';
import {compound_head, folio_test_anon} from './page.ts';
import {add_mm_rss_vec} from './rss_stat.ts';
import {zapKeepingUffdWp} from './userfaultfd_markers.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGETLB, VM_LOCKED, VM_UFFD_WP} from './vma_flags.ts';

/** struct zap_details. */
export interface ZapDetails {
  /** Only this folio (head pfn), 0 for any: truncation of one folio. */
  readonly singleFolio: number;
  /**
   * Private COW copies go, too; false for unmap_mapping_range that keeps them. No details at all
   * means true.
   */
  readonly evenCows: boolean;
  /** Markers go, too (unmap); without details they stay. */
  readonly dropMarkers: boolean;
}

const UNMAP_DETAILS: ZapDetails = {singleFolio: 0, evenCows: true, dropMarkers: true};

/**
 * unmap_vmas: zaps [start, end) in `vmas`, ascending and possibly detached. One UNMAP pair around
 * all.
 */
export function* unmap_vmas(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vmas: readonly VmArea[],
  start: number,
  end: number,
): Code {
  const {mm} = tlb;
  const first = vmas[0] ?? null;
  const range = new MmuNotifierRange(MMU_NOTIFY_UNMAP, mm, first, start, end, 'unmap_vmas');
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const walk = new ZapWalk(k, t, tlb);
  let locked: LockedFolios[] | null = null;
  for (let i = 0; i < vmas.length; i++) {
    const vma = vmas[i];
    if (vma.end <= start || vma.start >= end) continue;
    if ((vma.flags & VM_LOCKED) !== 0) {
      const from = Math.max(vma.start, start);
      locked = noteLocked(k, vma, from, Math.min(vma.end, end), locked);
    }
    let why = walk.start(vma, start, end, UNMAP_DETAILS);
    for (; why === WAITS_SETTLE; why = walk.step()) yield;
    if (why !== DONE) yield* walk.finish(why);
  }
  if (locked !== null) munlockUnmapped(k, t, locked);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/** unmap_single_vma: [start, end) of one VMA, without a notification. */
export function* unmap_single_vma(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const walk = new ZapWalk(k, t, tlb);
  const why = walk.start(vma, start, end, details);
  if (why !== DONE) yield* walk.finish(why);
}

/**
 * zap_page_range_single: gather, CLEAR pair, zap, finish. Caller holds mmap_lock (either way), a
 * VMA lock or i_mmap_rwsem.
 */
export function* zap_page_range_single(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const user = k.mm.byId(vma.space.mmId)!;
  const tlb = tlb_gather_mmu(user.mm);
  yield* zap_page_range_single_batched(k, t, tlb, vma, start, end, details);
  yield* tlb_finish_mmu(k, t, tlb);
}

/**
 * zap_page_range_single_batched: with a gather of the caller's (MADV_DONTNEED over many ranges).
 */
export function* zap_page_range_single_batched(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  if ((vma.flags & VM_HUGETLB) !== 0) {
    yield* k.mm.hooks.zap_hugetlb_range!(t, tlb, vma, start, end);
    return;
  }
  const range = new MmuNotifierRange(
    MMU_NOTIFY_CLEAR,
    tlb.mm,
    vma,
    start,
    end,
    'zap_page_range_single',
  );
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const locked = (vma.flags & VM_LOCKED) === 0 ? null : noteLocked(k, vma, start, end, null);
  yield* unmap_single_vma(k, t, tlb, vma, start, end, details);
  if (locked !== null) munlockUnmapped(k, t, locked);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/** Where a walk stands: done, or what it must wait for before it goes on. */
const DONE = 0;
const WAITS_SETTLE = 1;
const WAITS_LOCK = 2;
const WAITS_SPLIT = 3;
const WAITS_FLUSH = 4;
const WAITS_RESCHED = 5;
const HUGETLB = 6;

/** The walk of unmap_page_range; one object for all VMAs of an unmap_vmas. */
class ZapWalk {
  private readonly cursor = new PgtableCursor();
  private readonly zap = new ZapLoop();
  private readonly mm: Mm;
  private readonly pgd: UserPgd;
  private vma: VmArea = null!;
  private from = 0;
  private end = 0;
  private details: ZapDetails | null = null;

  constructor(
    readonly k: Kernel,
    readonly t: Task,
    readonly tlb: MmuGather,
  ) {
    this.mm = k.mm;
    this.pgd = tlb.mm.user!.pgd;
  }

  /** unmap_single_vma of [low, high) as far as it gets without waiting. */
  start(vma: VmArea, low: number, high: number, details: ZapDetails | null): number {
    const {mm} = this;
    this.t.cpu.charge(mm.costs.unmapVmaTicks, mm.fns.unmap_vmas);
    const from = Math.max(vma.start, low);
    const end = Math.min(vma.end, high);
    if (from >= end) return DONE;
    this.vma = vma;
    this.from = from;
    this.end = end;
    this.details = details;
    if ((vma.flags & VM_HUGETLB) !== 0) return HUGETLB;
    startRange(this.cursor, from, end);
    return this.step();
  }

  /** zap_p4d_range and below, a PTE table at a time; goes on after WAITS_SETTLE. */
  step(): number {
    const {k, t, mm, tlb, cursor, zap} = this;
    while (nextRange(this.pgd, cursor)) {
      if (t.cpu.settleWithin(LEAF_AHEAD_TICKS)) return this.again(WAITS_SETTLE);
      if (cursor.level > 0) {
        if (!this.zapHuge()) return WAITS_SPLIT;
        continue;
      }
      const {slot} = cursor;
      if (mm.ptl.busy(slot >>> 9)) return this.again(WAITS_LOCK);
      pte_lock(mm, t, slot, mm.fns.zap_pte_range);
      const done =
        (this.vma.flags & VM_UFFD_WP) === 0
          ? zap.run(k, t, tlb, cursor, this.details)
          : zapKeepingUffdWp(zap, k, t, tlb, this.vma, cursor, this.details);
      add_mm_rss_vec(k, t, tlb.mm, zap.vec);
      if (done < cursor.count) cursor.next = cursor.vpn + done;
      if (zap.forceFlush) return WAITS_FLUSH;
      pte_unlock(mm, t, slot);
      if (k.sched.needsResched(t)) return WAITS_RESCHED;
    }
    return DONE;
  }

  /** The walk comes back to the same place: the table may be gone after the wait. */
  private again(why: number): number {
    this.cursor.next = this.cursor.vpn;
    return why;
  }

  /** zap_pmd_range's case of a huge entry that goes as a whole; false when it must be split. */
  private zapHuge(): boolean {
    const {k, t, tlb, details} = this;
    const {hooks, pt, pages} = k.mm;
    const {slot, vpn, level} = this.cursor;
    const span = LEVEL_PAGES[level];
    if (vpn % span !== 0 || vpn + span > this.end) return hooks.split_huge === null;
    const pfn = pt.entries[slot] & 0x7fff_ffff;
    const keepsCow = details !== null && !details.evenCows;
    if (keepsCow && folio_test_anon(pages, compound_head(pages, pfn))) return true;
    hooks.zap_huge?.(t, tlb, this.vma, slot, vpn);
    return true;
  }

  /** unmap_single_vma from where `start` had to wait, to its end. */
  *finish(began: number): Code {
    const {k, t, tlb} = this;
    if (began === HUGETLB) {
      const {unmap_hugepage_range} = k.mm.hooks;
      if (unmap_hugepage_range === null) return;
      yield* unmap_hugepage_range(t, tlb, this.vma, this.from, this.end, this.details);
      return;
    }
    for (let why = began; why !== DONE; why = this.step()) {
      if (why === WAITS_SETTLE) yield;
      else if (why === WAITS_LOCK) yield* this.spin();
      else if (why === WAITS_SPLIT) {
        yield* k.mm.hooks.split_huge!(t, this.vma, this.cursor.slot, this.cursor.vpn);
        this.again(why);
      } else {
        if (why === WAITS_FLUSH) yield* this.flush();
        if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
      }
    }
  }

  private *spin(): Code {
    const {ptl, fns} = this.k.mm;
    const table = this.cursor.slot >>> 9;
    while (ptl.busy(table)) yield* ptl.spin(this.t, table, fns.zap_pte_range);
  }

  /** The flush that must come before the page-table lock is dropped, and what it makes free. */
  private *flush(): Code {
    const {k, t, tlb} = this;
    const {ptl} = k.mm;
    const {slot} = this.cursor;
    ptl.hold(slot >>> 9);
    yield* tlb_flush_mmu_tlbonly(k, t, tlb);
    ptl.unhold(slot >>> 9);
    pte_unlock(k.mm, t, slot);
    yield* tlb_flush_mmu(k, t, tlb);
  }
}
