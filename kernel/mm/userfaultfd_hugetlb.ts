// mm/userfaultfd.c and mm/hugetlb.c, 6.18: filling registered memory of hugetlbfs, a huge page at a
// time, under the fault mutex of the file's page and the vma lock, as a fault does
// (mfill_atomic_hugetlb, hugetlb_mfill_atomic_pte). There is no page of zeros for it.

import type {Code} from '../../machine/process.ts';
import {setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  MARKER_POISONED,
  PTE_DIRTY,
  PTE_MARKER,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {EEXIST, EFAULT, ENOMEM} from '../errno.ts';
import {uffdWork} from '../fs/userfaultfd_costs.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {addEntireMapping} from './folio_counts.ts';
import {alloc_hugetlb_folio, put_unused_folio} from './hugetlb_alloc.ts';
import {hugetlb_add_new_anon_rmap, make_huge_pte} from './hugetlb_fault.ts';
import {hugetlb_page} from './hugetlb_inode.ts';
import type {HState} from './hugetlb_pool.ts';
import {vma_hugecache_offset} from './hugetlb_resv.ts';
import {huge_pte_alloc} from './hugetlb_share.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {pageWorkTicks, pte_lock, pte_unlock} from './memory_pte.ts';
import {MAPPING_FILE, setMapping} from './page.ts';
import {PG_uptodate} from './page_flags.ts';
import type {Mfill} from './userfaultfd.ts';
import {pte_none_mostly} from './userfaultfd_markers.ts';
import type {VmArea} from './vma.ts';
import {VM_SHARED} from './vma_flags.ts';

/** One huge page of a call. */
interface Fill {
  readonly call: Mfill;
  readonly vma: VmArea;
  readonly h: HState;
  readonly vpn: number;
  /** Index in the file, in huge pages. */
  readonly index: number;
}

/** mfill_atomic_hugetlb for the huge page at `vpn`. `contents`: of its small pages. 0 or -errno. */
export function* mfill_atomic_hugetlb(
  k: Kernel,
  t: Task,
  vma: VmArea,
  call: Mfill,
  vpn: number,
  contents: readonly number[],
): Code<number> {
  const {mm} = k;
  const {user} = call.ctx;
  const {h} = vma.mapping!.hugetlb!;
  const {fns, costs} = uffdWork(k);
  const fn = fns.mfill_atomic_hugetlb;
  const {locks} = mm.hugetlb;
  t.cpu.charge(costs.fillTicks, fn);
  const fill: Fill = {call, vma, h, vpn, index: vma_hugecache_offset(h, vma, vpn)};
  const mutex = locks.faultMutex(vma.mapping!, fill.index);
  if (!mutex.acquire(t, fn)) yield* mutex.acquireSlow(t, fn);
  const lock = yield* locks.lock_read(t, vma, fn);
  const slot = yield* huge_pte_alloc(k, t, user, h, vma, vpn);
  let result = slot < 0 ? -ENOMEM : 0;
  if (result === 0) result = yield* fillPte(k, t, fill, slot, contents);
  yield* locks.unlock_read(t, lock);
  if (!mutex.release(t)) yield* mutex.releaseSlow(t);
  return result;
}

function* fillPte(
  k: Kernel,
  t: Task,
  fill: Fill,
  slot: number,
  contents: readonly number[],
): Code<number> {
  const {mm} = k;
  const {call, vma, h, vpn, index} = fill;
  const {mode} = call;
  if (t.cpu.settle()) yield;
  if (mode === 'poison') {
    if (mm.pt.flags[slot] !== 0) return -EEXIST;
    setHuge(mm.pt, slot, MARKER_POISONED, PTE_MARKER);
    return 0;
  }
  const mapping = vma.mapping!;
  const shared = (vma.flags & VM_SHARED) !== 0;
  let head = hugetlb_page(k, mapping, index);
  const cached = mode === 'continue' || shared;
  if (mode === 'continue') {
    if (head === 0) return -EFAULT;
  } else {
    if (!pte_none_mostly(mm.pt.flags[slot])) return -EEXIST;
    if (shared && head !== 0) return -EEXIST;
    head = yield* newPage(k, t, fill, contents);
    if (head === 0) return -ENOMEM;
    if (shared) {
      if (index >= Math.floor(mapping.sizePages / h.pages)) {
        put_unused_folio(k, t, h, vma, vpn, head);
        return -EFAULT;
      }
      mm.hugetlb.restoreReserve.delete(head);
      mm.files.addPage(mapping, index * h.pages, head);
      setMapping(mm.pages, head, MAPPING_FILE, mapping.id, index * h.pages);
    }
  }
  return yield* installHuge(k, t, fill, slot, head, cached);
}

/** A page of the pool with the source's content, 0 when the pool has none. */
function* newPage(
  k: Kernel,
  t: Task,
  {call, vma, h, vpn}: Fill,
  contents: readonly number[],
): Code<number> {
  const {mm} = k;
  if ((vma.flags & VM_SHARED) === 0) anon_vma_prepare(k, t, vma, 0);
  const head = alloc_hugetlb_folio(k, t, h, vma, vpn, false);
  if (head === 0) return 0;
  const {pages} = mm;
  const ticks = pageWorkTicks(k, t, mm.costs.copyPageTicks, pages.nodeOf(head), h.pages);
  t.cpu.charge(ticks, mm.fns.copy_mc_to_kernel);
  if (call.mode === 'copy' && (pages.hasContent || contents.some((content) => content !== 0))) {
    for (let n = 0; n < h.pages; n++) pages.content[head + n] = contents[n];
  }
  pages.flags[head] |= PG_uptodate;
  if (t.cpu.settle()) yield;
  return head;
}

function* installHuge(
  k: Kernel,
  t: Task,
  {call, vma, h, vpn}: Fill,
  slot: number,
  head: number,
  cached: boolean,
): Code<number> {
  const {mm} = k;
  const {pt} = mm;
  const fn = uffdWork(k).fns.mfill_atomic_hugetlb;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const empty = pte_none_mostly(pt.flags[slot]);
  if (empty) {
    if (cached) {
      addEntireMapping(mm.pages, head);
      mm.pages.refcount.increment(head);
    } else hugetlb_add_new_anon_rmap(k, head, vma, vpn);
    const keeps = call.mode === 'continue' && (vma.flags & VM_SHARED) === 0;
    const word = make_huge_pte(vma, !keeps && !call.wp) | PTE_DIRTY | PTE_SOFT_DIRTY;
    setHuge(pt, slot, head, call.wp ? (word | PTE_UFFD_WP) & ~PTE_WRITE : word);
    call.ctx.user.hugetlbUsage += h.pages;
    t.cpu.charge(mm.costs.setPteTicks, fn);
  }
  pte_unlock(mm, t, slot);
  if (empty) return 0;
  if (!cached) put_unused_folio(k, t, h, vma, vpn, head);
  else if (call.mode !== 'continue') {
    // A page that has just entered the file stays there, as in Linux.
    mm.pages.flags[head] |= PG_uptodate;
  }
  return -EEXIST;
}
