// mm/userfaultfd.c: filling a registered range (mfill_atomic), 6.18: UFFDIO_COPY, _ZEROPAGE,
// _CONTINUE (5.13+) and _POISON (6.6+), a page at a time. Only empty entries and markers are
// filled; anything else is EEXIST. The destination is one VMA, locked by itself (6.8+) or by
// mmap_lock, both for reading. Nothing is told to notifiers: an empty entry has no shadow.

import type {Code} from '../../machine/process.ts';
import {
  MARKER_POISONED,
  PTE_DIRTY,
  PTE_MARKER,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {pteSlot, setPte} from '../arch/x86/mm/pgtable.ts';
import {EAGAIN, EEXIST, EFAULT, EINTR, EINVAL, ENOENT, ENOMEM} from '../errno.ts';
import {uffdWork} from '../fs/userfaultfd_costs.ts';
import type {UserfaultfdCtx} from '../fs/userfaultfd_types.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {filemap_add_folio, filemap_get_page} from './filemap.ts';
import {addPteMapping} from './folio_counts.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {mm_counter_file} from './memory_file.ts';
import {
  mappedPte,
  PTE_ZERO_PAGE,
  pageWorkTicks,
  pte_alloc,
  pte_lock,
  pte_unlock,
} from './memory_pte.ts';
import {mmap_read_lock, mmap_read_unlock} from './mmap_lock.ts';
import {clearMapping, compound_head} from './page.ts';
import {alloc_folio, alloc_folio_slow, folio_put} from './page_alloc.ts';
import {PG_dirty, PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {mfill_atomic_hugetlb} from './userfaultfd_hugetlb.ts';
import {pte_none_mostly, userfaultfd_wp} from './userfaultfd_markers.ts';
import {peekSource, readSource} from './userfaultfd_source.ts';
import type {UserMm} from './user_mm.ts';
import {linear_page_index, type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_HUGETLB, VM_SHARED, VM_WRITE} from './vma_flags.ts';
import {vma_end_read, vma_start_read} from './vma_lock.ts';

export type MfillMode = 'copy' | 'zeropage' | 'continue' | 'poison';

/** One call of mfill_atomic. */
export interface Mfill {
  readonly ctx: UserfaultfdCtx;
  readonly mode: MfillMode;
  readonly start: number;
  /** First page of the source in the caller's memory (copy). */
  readonly src: number;
  readonly pages: number;
  /** UFFDIO_COPY_MODE_WP and its kin. */
  readonly wp: boolean;
}

/** A lock that keeps one VMA as it is. */
export interface HeldVma {
  readonly vma: VmArea;
  readonly own: boolean;
}

/** uffd_mfill_lock: the VMA that holds all of [start, end) and is registered, or -ENOENT. */
export function* uffd_mfill_lock(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
): Code<HeldVma | number> {
  if (t.cpu.settle()) yield;
  const near = user.space.tree.lookup(start);
  const byItself = !isBefore(k.facts.version, '6.8') && near !== null;
  const prepared = near !== null && (near.anonVma !== null || (near.flags & VM_SHARED) !== 0);
  if (byItself && prepared && vma_start_read(k, user, near, true)) {
    if (near.uffd !== 0 && near.end >= end) return {vma: near, own: true};
    vma_end_read(k, user, near);
    return -ENOENT;
  }
  yield* mmap_read_lock(t, user, uffdWork(k).fns.mfill_atomic);
  const vma = user.space.tree.lookup(start);
  if (vma === null || vma.uffd === 0 || vma.end < end) {
    yield* mmap_read_unlock(t, user);
    return -ENOENT;
  }
  if ((vma.flags & VM_SHARED) === 0) anon_vma_prepare(k, t, vma, 0);
  return {vma, own: false};
}

/** uffd_mfill_unlock. */
export function* uffd_mfill_unlock(k: Kernel, t: Task, user: UserMm, held: HeldVma): Code {
  if (held.own) vma_end_read(k, user, held.vma);
  else yield* mmap_read_unlock(t, user);
}

/** mfill_atomic: pages filled, or the error that came before the first. */
export function* mfill_atomic(k: Kernel, t: Task, call: Mfill): Code<number> {
  const {ctx, start, pages, src} = call;
  const {user} = ctx;
  let filled = 0;
  /** What was read of the source with no lock held. */
  let kept: number[] | null = null;
  for (;;) {
    const held = yield* uffd_mfill_lock(k, t, user, start, start + pages);
    if (typeof held === 'number') return filled > 0 ? filled : held;
    let error = ctx.mmapChanging > 0 ? -EAGAIN : checkVma(held.vma, call);
    const huge = (held.vma.flags & VM_HUGETLB) !== 0;
    const unit = huge ? held.vma.mapping!.hugetlb!.h.pages : 1;
    const offset = start % unit === 0 && pages % unit === 0;
    if (error === 0 && !offset) error = -EINVAL;
    while (error === 0 && filled < pages) {
      const at = start + filled;
      const contents: number[] | null = kept ?? sourceOf(k, t, call, src + filled, unit);
      kept = null;
      if (contents === null) error = NO_SOURCE;
      else if (huge) error = yield* mfill_atomic_hugetlb(k, t, held.vma, call, at, contents);
      else error = yield* mfill_atomic_pte(k, t, user, held.vma, call, at, contents[0]);
      if (error === 0) filled += unit;
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
      if (t.sigkill) error = -EINTR;
    }
    yield* uffd_mfill_unlock(k, t, user, held);
    if (error !== NO_SOURCE) return filled > 0 ? filled : error;
    kept = yield* readSource(k, t, src + filled, unit);
    if (kept === null) return filled > 0 ? filled : -EFAULT;
  }
}
/** Not an error of Linux's (there -ENOENT inside): the source must be faulted in. */
const NO_SOURCE = -10_000;

/** Contents to fill with: the source's, or zeros. */
function sourceOf(k: Kernel, t: Task, call: Mfill, src: number, unit: number): number[] | null {
  if (call.mode !== 'copy') return ZERO;
  return peekSource(k, t, src, unit);
}
const ZERO = [0];

function checkVma(vma: VmArea, {mode, wp}: Mfill): number {
  if (wp && !userfaultfd_wp(vma)) return -EINVAL;
  if ((vma.flags & VM_HUGETLB) !== 0) return mode === 'zeropage' ? -EINVAL : 0;
  if (!vma_is_anonymous(vma) && vma.ops !== 'shmem') return -EINVAL;
  return mode === 'continue' && vma.ops !== 'shmem' ? -EINVAL : 0;
}

/** mfill_atomic_pte: 0 or -errno. */
function* mfill_atomic_pte(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  call: Mfill,
  vpn: number,
  content: number,
): Code<number> {
  const {mm} = k;
  if (t.cpu.settle()) yield;
  t.cpu.charge(uffdWork(k).costs.fillTicks, uffdWork(k).fns.mfill_atomic);
  const slot = pte_alloc(k, t, user, vpn);
  // A huge page is there.
  if (slot < 0) return -EEXIST;
  const shared = (vma.flags & VM_SHARED) !== 0;
  const {mode} = call;
  if (mode === 'poison') return yield* install(k, t, user, vma, vpn, slot, POISON);
  if (mode === 'continue') {
    const index = linear_page_index(vma, vpn);
    if (vma.mapping!.host === 'shmem' && mm.files.value(vma.mapping!, index) >= 0) {
      yield* mm.hooks.shmem_swapin!(t, vma.mapping!, index);
    }
    const pfn = filemap_get_page(k, t, vma.mapping!, index);
    if (pfn === 0) return -EFAULT;
    mm.pages.refcount.increment(compound_head(mm.pages, pfn));
    const result = yield* install(k, t, user, vma, vpn, slot, {pfn, cached: true, wp: call.wp});
    if (result !== 0) folio_put(k, t, compound_head(mm.pages, pfn));
    return result;
  }
  if (mode === 'zeropage' && !shared) return yield* install(k, t, user, vma, vpn, slot, ZEROPAGE);
  const pfn = yield* newPage(k, t, user, vma, vpn, mode === 'copy' ? content : 0, mode);
  if (pfn === 0) return -ENOMEM;
  if (!shared) {
    const result = yield* install(k, t, user, vma, vpn, slot, {pfn, cached: false, wp: call.wp});
    if (result !== 0) folio_put(k, t, pfn);
    return result;
  }
  return yield* installShmem(k, t, user, vma, vpn, slot, pfn, call.wp);
}

/** A page with the source's content, 0 without memory. */
function* newPage(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  content: number,
  mode: MfillMode,
): Code<number> {
  const {mm} = k;
  const node = mm.nodeFor(vma, vpn, t);
  let pfn = alloc_folio(k, t, 0, node, user.memcg);
  if (pfn < 0) pfn = yield* alloc_folio_slow(k, t, 0, node, user.memcg);
  if (pfn <= 0) return 0;
  const copies = mode === 'copy';
  const base = copies ? mm.costs.copyPageTicks : mm.costs.clearPageTicks;
  const fn = copies ? mm.fns.copy_mc_to_kernel : mm.fns.clear_page_erms;
  t.cpu.charge(pageWorkTicks(k, t, base, mm.pages.nodeOf(pfn), 1), fn);
  if (copies) t.cpu.charge(uffdWork(k).costs.copyPageTicks, uffdWork(k).fns.mfill_atomic);
  if (content !== 0) mm.pages.content[pfn] = content;
  mm.pages.flags[pfn] |= PG_uptodate;
  return pfn;
}

/** shmem_mfill_atomic_pte: the page enters the file first. */
function* installShmem(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  slot: number,
  pfn: number,
  wp: boolean,
): Code<number> {
  const {mm} = k;
  const mapping = vma.mapping!;
  const index = linear_page_index(vma, vpn);
  if (t.cpu.settle()) yield;
  let result = 0;
  if (index >= mapping.sizePages) result = -EFAULT;
  else if (mm.files.page(mapping, index) !== 0 || mm.files.value(mapping, index) >= 0) {
    result = -EEXIST;
  }
  if (result !== 0) {
    folio_put(k, t, pfn);
    return result;
  }
  filemap_add_folio(k, t, mapping, index, pfn);
  mm.pages.flags[pfn] |= PG_dirty;
  mm.pages.refcount.increment(pfn);
  result = yield* install(k, t, user, vma, vpn, slot, {pfn, cached: true, wp});
  if (result === 0) return 0;
  mm.files.removePage(mapping, index, -1);
  clearMapping(mm.pages, pfn);
  folio_put(k, t, pfn);
  folio_put(k, t, pfn);
  return result;
}

/**
 * What goes into an entry: a page and how it is mapped, the page of zeros, or a marker of poison.
 */
interface Entry {
  readonly pfn: number;
  readonly cached: boolean;
  readonly wp: boolean;
}
const POISON: Entry = {pfn: -1, cached: false, wp: false};
const ZEROPAGE: Entry = {pfn: 0, cached: false, wp: false};

/** mfill_atomic_install_pte, and what _zeropage and _poison have in its place. */
function* install(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  slot: number,
  entry: Entry,
): Code<number> {
  const {mm} = k;
  const {pt, pages} = mm;
  const fn = uffdWork(k).fns.mfill_atomic;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const {pfn} = entry;
  const beyond = vma.mapping !== null && linear_page_index(vma, vpn) >= vma.mapping.sizePages;
  // Poison and zeros go only where nothing is; a page may replace a marker.
  const empty = pfn > 0 ? pte_none_mostly(pt.flags[slot]) : pt.flags[slot] === 0;
  // pte_offset_map_lock: the table may have been freed meanwhile (pt_reclaim.ts).
  const gone = pteSlot(user.pgd, vpn) !== slot;
  const result = gone ? -EAGAIN : beyond ? -EFAULT : empty ? 0 : -EEXIST;
  if (result === 0) {
    t.cpu.charge(mm.costs.setPteTicks, fn);
    if (pfn < 0) setPte(pt, slot, MARKER_POISONED, PTE_MARKER);
    else if (pfn === 0) setPte(pt, slot, mm.zeroPfn, PTE_ZERO_PAGE);
    else {
      if (entry.cached) addPteMapping(pages, compound_head(pages, pfn), pfn);
      else {
        folio_add_new_anon_rmap(k, pfn, vma, vpn);
        folio_add_lru_vma(k, t, pfn, vma);
      }
      const member = entry.cached ? mm_counter_file(k, pfn) : MM_ANONPAGES;
      add_mm_counter(k, t, user.mm, member, 1);
      setPte(pt, slot, pfn, filledPte(vma, entry));
    }
  }
  pte_unlock(mm, t, slot);
  return result;
}

/**
 * Dirty always; writable if the VMA is, unless it is a file's page in a private mapping, or
 * protected.
 */
function filledPte(vma: VmArea, {cached, wp}: Entry): number {
  const dirty = mappedPte(vma) | PTE_DIRTY | PTE_SOFT_DIRTY;
  if (wp) return dirty | PTE_UFFD_WP;
  const keeps = cached && (vma.flags & VM_SHARED) === 0;
  return keeps || (vma.flags & VM_WRITE) === 0 ? dirty : dirty | PTE_WRITE;
}
