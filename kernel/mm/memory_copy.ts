// mm/memory.c: fork's copy of page tables (copy_page_range), 6.18.
//
// Copied are VMAs with an anon_vma, pfn maps and write-protected userfaultfd ranges; what a file
// can give again is left to the child's faults. In a COW mapping both sides lose write access: one
// PROTECTION_PAGE pair around the VMA, write_protect_seq odd meanwhile; the parent's TLB flush
// comes after all VMAs (dup_mmap). A pinned exclusive page is copied at once. Counters of the child
// go up per PTE table, after its locks are dropped.

import type {Code} from '../../machine/process.ts';
import {setPte, type UserPgd} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  MARKER_GUARD,
  MARKER_POISONED,
  PTE_DEVICE_EXCLUSIVE,
  PTE_DEVICE_READ,
  PTE_DEVICE_WRITE,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_MIGRATION_READ,
  PTE_PROTNONE,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_SWP_EXCLUSIVE,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {addPteMapping, folio_maybe_dma_pinned} from './folio_counts.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {LEAF_AHEAD_TICKS} from './leaf_lock.ts';
import {dirtyPte, pageWorkTicks, pte_alloc, pte_lock, pte_unlock} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {
  callStart,
  invalidate_range_end,
  invalidate_range_start,
  mm_has_notifiers,
  mmu_notifier_invalidate_range_end,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_PROTECTION_PAGE, MmuNotifierRange} from './mmu_notifier_types.ts';
import {compound_head, folio_test_anon} from './page.ts';
import {alloc_folio} from './page_alloc.ts';
import {PG_anon_exclusive, PG_head, PG_swapbacked, PG_tail, PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap} from './rmap.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS} from './rss.ts';
import {add_mm_rss_vec} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {
  is_cow_mapping,
  VM_HUGETLB,
  VM_MIXEDMAP,
  VM_PFNMAP,
  VM_SHARED,
  VM_UFFD_WP,
} from './vma_flags.ts';

const LARGE = PG_head | PG_tail;

/** vma_needs_copy. */
export function vma_needs_copy(dst: VmArea, src: VmArea): boolean {
  return src.anonVma !== null || holdsOtherPages(dst, src);
}

function holdsOtherPages(dst: VmArea, src: VmArea): boolean {
  if (dst.uffd !== 0 && (dst.flags & VM_UFFD_WP) !== 0) return true;
  if ((src.flags & VM_HUGETLB) !== 0 && src.mapping!.hugetlb!.copiesAtFork) return true;
  return (src.flags & (VM_PFNMAP | VM_MIXEDMAP)) !== 0;
}

/** Where a walk stands: done, out of memory, or what it must wait for before it goes on. */
const DONE = 0;
const NO_MEMORY = 1;
const WAITS_SETTLE = 2;
const WAITS_LOCK = 3;
const WAITS_SPLIT = 4;
const WAITS_RESCHED = 5;
const WAITS_NOTIFIER = 6;
const HUGETLB = 7;

/** dup_mmap's walk over the page tables of parent and child: one object for all VMAs. */
export class CopyWalk {
  private readonly cursor = new PgtableCursor();
  private readonly vec = new Int32Array(4);
  private readonly mm: Mm;
  private readonly to: UserMm;
  private readonly pgd: UserPgd;
  private dstVma: VmArea = null!;
  private srcVma: VmArea = null!;
  /** The range of the VMA at hand, where notifiers are told of it: it is a COW mapping. */
  private readonly range: MmuNotifierRange;
  private notifies = false;

  constructor(
    readonly k: Kernel,
    readonly t: Task,
    readonly dst: MmStruct,
    readonly src: MmStruct,
  ) {
    this.mm = k.mm;
    this.to = dst.user!;
    this.pgd = src.user!.pgd;
    const event = MMU_NOTIFY_PROTECTION_PAGE;
    this.range = new MmuNotifierRange(event, src, null, 0, 0, 'copy_page_range');
  }

  /** copy_page_range as far as it gets without waiting. */
  start(dstVma: VmArea, srcVma: VmArea): number {
    const {k, t, src, mm} = this;
    this.dstVma = dstVma;
    this.srcVma = srcVma;
    this.notifies = is_cow_mapping(srcVma.flags);
    t.cpu.charge(mm.costs.copyVmaTicks, mm.fns.copy_page_range);
    const {start, end, flags} = srcVma;
    if ((flags & VM_HUGETLB) !== 0) return HUGETLB;
    startRange(this.cursor, start, end);
    if (this.notifies) {
      this.range.moveTo(srcVma, start, end);
      if (!invalidate_range_start(k, t, this.range)) return WAITS_NOTIFIER;
      src.user!.writeProtectSeq++;
    }
    return this.step();
  }

  /** copy_p4d_range and below, a PTE table at a time. */
  private step(): number {
    const {k, t, mm, to, cursor} = this;
    while (nextRange(this.pgd, cursor)) {
      if (cursor.level > 0) {
        if (!this.copyHuge()) return WAITS_SPLIT;
        if (t.cpu.settle()) return WAITS_SETTLE;
        continue;
      }
      const target = pte_alloc(k, t, to, cursor.vpn);
      if (target < 0) return NO_MEMORY;
      if (t.cpu.settleWithin(LEAF_AHEAD_TICKS)) return this.again(WAITS_SETTLE);
      if (mm.ptl.busy(cursor.slot >>> 9)) return this.again(WAITS_LOCK);
      const fn = mm.fns.copy_pte_range;
      pte_lock(mm, t, target, fn);
      pte_lock(mm, t, cursor.slot, fn);
      copy_pte_range(k, t, cursor, target, this.dstVma, this.srcVma, this.vec);
      pte_unlock(mm, t, cursor.slot);
      add_mm_rss_vec(k, t, this.dst, this.vec);
      pte_unlock(mm, t, target);
      if (k.sched.needsResched(t)) return WAITS_RESCHED;
    }
    return DONE;
  }

  /** The walk comes back to the same place: what was there may be gone after the wait. */
  private again(why: number): number {
    this.cursor.next = this.cursor.vpn;
    return why;
  }

  private copyHuge(): boolean {
    const {k, t, dst, src, dstVma, srcVma} = this;
    const {slot, vpn} = this.cursor;
    return k.mm.hooks.copy_huge_pmd?.(t, dst, src, dstVma, srcVma, slot, vpn) ?? false;
  }

  /** copy_page_range from where `start` had to wait, to its end. 0 or -12 (ENOMEM). */
  *finish(began: number): Code<number> {
    const {k, t, range, src} = this;
    let why = began;
    if (why === HUGETLB) return yield* this.hugetlb();
    if (why === WAITS_NOTIFIER) {
      yield* callStart(k, t, range);
      src.user!.writeProtectSeq++;
      why = this.step();
    }
    while (why > NO_MEMORY) {
      if (why === WAITS_SETTLE) yield;
      else if (why === WAITS_RESCHED) yield* k.sched.condResched(t);
      else if (why === WAITS_LOCK) yield* this.spin();
      else if (k.mm.hooks.split_huge === null) why = NO_MEMORY;
      else {
        yield* k.mm.hooks.split_huge(t, this.srcVma, this.cursor.slot, this.cursor.vpn);
        this.again(why);
      }
      if (why > NO_MEMORY) why = this.step();
    }
    if (this.notifies) {
      src.user!.writeProtectSeq++;
      yield* mmu_notifier_invalidate_range_end(k, t, range);
    }
    return why === DONE ? 0 : -ENOMEM;
  }

  private *spin(): Code {
    const {ptl, fns} = this.k.mm;
    const table = this.cursor.slot >>> 9;
    while (ptl.busy(table)) yield* ptl.spin(this.t, table, fns.copy_pte_range);
  }

  private *hugetlb(): Code<number> {
    const {copy_hugetlb_page_range} = this.k.mm.hooks;
    if (copy_hugetlb_page_range === null) return 0;
    return yield* copy_hugetlb_page_range(this.t, this.dst, this.src, this.dstVma, this.srcVma);
  }

  /** The end of `start` when nothing had to wait. False: go on with `finish`. */
  ended(): boolean {
    if (!this.notifies) return true;
    if (mm_has_notifiers(this.src)) return false;
    this.src.user!.writeProtectSeq++;
    return invalidate_range_end(this.k, this.range);
  }
}

/**
 * copy_page_range: copies the PTEs of `srcVma` for the child. Caller: dup_mmap with both mmap_locks
 * for write, after the child's VMA is linked, when vma_needs_copy. Returns 0 or -12 (ENOMEM).
 */
export function* copy_page_range(walk: CopyWalk, dstVma: VmArea, srcVma: VmArea): Code<number> {
  return yield* walk.finish(walk.start(dstVma, srcVma));
}

/** One run of PTEs of one table, under both locks. */
function copy_pte_range(
  k: Kernel,
  t: Task,
  cursor: PgtableCursor,
  to: number,
  dstVma: VmArea,
  srcVma: VmArea,
  vec: Int32Array,
): void {
  const {mm} = k;
  const {slot: from, count, vpn} = cursor;
  const {pt, costs} = mm;
  const {entries, flags} = pt;
  const cow = is_cow_mapping(srcVma.flags);
  const wp = dstVma.uffd !== 0 && (dstVma.flags & VM_UFFD_WP) !== 0;
  // The child's entries are old; in shared mappings they are clean as well.
  const shared = (srcVma.flags & VM_SHARED) === 0 ? 0 : PTE_DIRTY;
  const childMask = ~(PTE_YOUNG | shared | (wp ? 0 : PTE_UFFD_WP));
  let present = 0;
  let others = 0;
  let copied = 0;
  const end = from + count;
  for (let at = pt.skipNone(from, end); at < end; at = pt.skipNone(at + 1, end)) {
    const i = at - from;
    let word = flags[at];
    const value = entries[at];
    if ((word & PTE_KIND) > PTE_PROTNONE) {
      others++;
      word = copy_nonpresent_pte(k, at, wp, vec);
      if (word === 0) continue;
      flags[to + i] = wp ? word : word & ~PTE_UFFD_WP;
      entries[to + i] = value;
      copied++;
      continue;
    }
    present++;
    copied++;
    if ((word & PTE_SPECIAL) === 0 && !dup_page(mm, value, vec)) {
      if (copy_present_page(k, t, value, to + i, vpn + i, dstVma)) {
        if (wp && (word & PTE_UFFD_WP) !== 0) flags[to + i] = (word & ~PTE_WRITE) | PTE_UFFD_WP;
        continue;
      }
      sharePage(mm, value);
    }
    if (cow && (word & PTE_WRITE) !== 0) {
      word &= ~PTE_WRITE;
      flags[at] = word;
    }
    flags[to + i] = word & childMask;
    entries[to + i] = value;
  }
  pt.population[to >>> 9] += copied;
  const ticks = present * costs.copyPteTicks + others * costs.copyOtherPteTicks;
  const all = ticks + costs.copyTableTicks + Math.round(count * costs.scanPteTicks);
  t.cpu.charge(all, mm.fns.copy_pte_range);
}

/**
 * copy_present_ptes for one page with a struct page: counts it in `vec` and gives it one more
 * mapping. False when an exclusive page is pinned: the caller copies it, or shares it after all.
 */
function dup_page(mm: Mm, pfn: number, vec: Int32Array): boolean {
  const {pages} = mm;
  const {flags} = pages;
  const head = (flags[pfn] & LARGE) === 0 ? pfn : compound_head(pages, pfn);
  if (!folio_test_anon(pages, head)) {
    vec[(flags[head] & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES]++;
  } else {
    vec[MM_ANONPAGES]++;
    if ((flags[pfn] & PG_anon_exclusive) !== 0) {
      if (folio_maybe_dma_pinned(pages, head)) return false;
      flags[pfn] &= ~PG_anon_exclusive;
    }
  }
  pages.refcount.increment(head);
  if (head === pfn && (flags[pfn] & LARGE) === 0) pages.mapcount.increment(pfn);
  else addPteMapping(pages, head, pfn);
  return true;
}

function sharePage({pages}: Mm, pfn: number): void {
  const head = compound_head(pages, pfn);
  pages.flags[pfn] &= ~PG_anon_exclusive;
  pages.refcount.increment(head);
  addPteMapping(pages, head, pfn);
}

/**
 * copy_present_page: the child gets its own copy of a page that the parent has pinned. False: no
 * memory; share it.
 */
function copy_present_page(
  k: Kernel,
  t: Task,
  pfn: number,
  to: number,
  vpn: number,
  vma: VmArea,
): boolean {
  const {mm} = k;
  const memcg = mm.byId(vma.space.mmId)!.memcg;
  const copy = alloc_folio(k, t, 0, mm.nodeFor(vma, vpn, t), memcg, true);
  if (copy <= 0) return false;
  const ticks = pageWorkTicks(k, t, mm.costs.copyPageTicks, mm.pages.nodeOf(copy), 1);
  t.cpu.charge(ticks, mm.fns.copy_mc_to_kernel);
  if (mm.pages.hasContent) mm.pages.content[copy] = mm.pages.content[pfn];
  mm.pages.flags[copy] |= PG_uptodate;
  folio_add_new_anon_rmap(k, copy, vma, vpn);
  folio_add_lru_vma(k, t, copy, vma);
  setPte(mm.pt, to, copy, dirtyPte(vma));
  mm.pt.population[to >>> 9]--;
  return true;
}

/**
 * copy_nonpresent_pte: flags word of the child's entry, 0 for none. The parent's entry loses
 * exclusiveness and write access.
 */
function copy_nonpresent_pte(k: Kernel, from: number, wp: boolean, vec: Int32Array): number {
  const {pt, pages, hooks} = k.mm;
  const word = pt.flags[from];
  const value = pt.entries[from];
  const kind = word & PTE_KIND;
  if (kind === PTE_SWAP) {
    hooks.swap_duplicate?.(value, 1);
    vec[MM_SWAPENTS]++;
    const shared = word & ~PTE_SWP_EXCLUSIVE;
    pt.flags[from] = shared;
    return shared;
  }
  if (kind === PTE_MARKER) {
    const keep = value & (MARKER_POISONED | MARKER_GUARD);
    return keep !== 0 || wp ? word : 0;
  }
  const head = compound_head(pages, value);
  const anon = folio_test_anon(pages, head);
  const file = (pages.flags[head] & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES;
  if (is_migration_entry(word)) {
    vec[anon ? MM_ANONPAGES : file]++;
    const reader = anon ? (word & ~PTE_KIND) | PTE_MIGRATION_READ : word;
    pt.flags[from] = reader;
    return reader;
  }
  if (kind >= PTE_DEVICE_READ && kind <= PTE_DEVICE_EXCLUSIVE) {
    vec[anon ? MM_ANONPAGES : file]++;
    pages.refcount.increment(head);
    addPteMapping(pages, head, value);
    pages.flags[value] &= ~PG_anon_exclusive;
    const reader = kind === PTE_DEVICE_WRITE ? (word & ~PTE_KIND) | PTE_DEVICE_READ : word;
    pt.flags[from] = reader;
    return reader;
  }
  return word;
}
