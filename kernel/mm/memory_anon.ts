// mm/memory.c: the first access to private anonymous memory (do_anonymous_page), 6.18.
//
// A read maps the page of zeros and counts nothing. A write gets a cleared page, exclusive to this
// mm. With mTHP enabled (hooks.anonOrder) an aligned group of empty PTEs gets one large folio.

import {setPte} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {NEED_HOOK, NEED_MEMORY, NEED_PTL} from './memory_need.ts';
import {
  dirtyPte,
  PTE_ZERO_PAGE,
  pageWorkTicks,
  pte_alloc,
  pte_lock,
  pte_unlock,
} from './memory_pte.ts';
import {alloc_folio, folio_put} from './page_alloc.ts';
import {PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap, folio_add_new_anon_rmap_large} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {
  FAULT_FLAG_VMA_LOCK,
  FAULT_FLAG_WRITE,
  FAULT_MINOR_ANON,
  FAULT_ZERO_PAGE,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  type VmFault,
} from './vm_fault.ts';
import {userfaultfd_armed, type VmArea} from './vma.ts';
import {VM_SHARED, VM_UFFD_MISSING} from './vma_flags.ts';

/** vmf_anon_prepare: the VMA has an anon_vma afterwards. */
export function anon_vma_prepare(k: Kernel, t: Task, vma: VmArea, flags: number): void {
  if (vma.anonVma !== null) return;
  const {mm} = k;
  mm.anon.prepare(vma);
  t.cpu.charge(mm.costs.anonVmaPrepareTicks, mm.fns.__anon_vma_prepare);
  // Under the VMA's lock alone mmap_lock is taken for read meanwhile, as neighbours are looked at.
  if ((flags & FAULT_FLAG_VMA_LOCK) !== 0) {
    t.cpu.stall(2 * k.machine.topology.atomicLocalTicks, mm.fns.__anon_vma_prepare);
  }
}

/** A page of zeros for a private mapping: pfn, or -1 (NEED_MEMORY), or 0 (out of memory). */
export function folio_prealloc_zeroed(k: Kernel, t: Task, f: VmFault): number {
  const pfn = alloc_anon_page(k, t, f);
  if (pfn <= 0) return pfn;
  const {mm} = k;
  const ticks = pageWorkTicks(k, t, mm.costs.clearPageTicks, mm.pages.nodeOf(pfn), 1);
  t.cpu.charge(ticks, mm.fns.clear_page_erms);
  return pfn;
}

/** A page for a private mapping, its content undefined. */
export function alloc_anon_page(k: Kernel, t: Task, f: VmFault): number {
  if (f.prealloc !== 0) {
    const pfn = f.prealloc;
    f.prealloc = 0;
    return pfn;
  }
  const {mm} = k;
  return alloc_folio(k, t, 0, mm.nodeFor(f.vma, f.vpn, t), f.user.memcg);
}

/** do_anonymous_page: the PTE is none. */
export function do_anonymous_page(k: Kernel, t: Task, f: VmFault): number {
  const {vma} = f;
  if ((vma.flags & VM_SHARED) !== 0) return VM_FAULT_SIGBUS;
  const slot = pte_alloc(k, t, f.user, f.vpn);
  if (slot < 0) return 0;
  f.slot = slot;
  if (vma.uffd !== 0 && (vma.flags & VM_UFFD_MISSING) !== 0) {
    f.uffdReason = VM_UFFD_MISSING;
    return NEED_HOOK;
  }
  if ((f.flags & FAULT_FLAG_WRITE) === 0) return mapZeroPage(k, t, f);
  const {mm} = k;
  const {anonOrder} = mm.hooks;
  const order = anonOrder === null || userfaultfd_armed(vma) ? 0 : anonOrder(vma, f.vpn);
  anon_vma_prepare(k, t, vma, f.flags);
  if (order > 0 && tryLargeFolio(k, t, f, order)) return 0;
  if (mm.ptl.busy(slot >>> 9)) return NEED_PTL;
  const pfn = folio_prealloc_zeroed(k, t, f);
  if (pfn <= 0) return pfn < 0 ? NEED_MEMORY : VM_FAULT_OOM;
  pte_lock(mm, t, slot, mm.fns.do_anonymous_page);
  if (mm.pt.flags[slot] !== 0) {
    pte_unlock(mm, t, slot);
    folio_put(k, t, pfn);
    return 0;
  }
  t.cpu.charge(mm.costs.newAnonTicks + mm.costs.setPteTicks, mm.fns.do_anonymous_page);
  mm.pages.flags[pfn] |= PG_uptodate;
  add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  folio_add_new_anon_rmap(k, pfn, vma, f.vpn);
  folio_add_lru_vma(k, t, pfn, vma);
  setPte(mm.pt, slot, pfn, dirtyPte(vma));
  pte_unlock(mm, t, slot);
  f.faultClass = FAULT_MINOR_ANON;
  return 0;
}

function mapZeroPage(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {slot} = f;
  if (!pte_lock(mm, t, slot, mm.fns.do_anonymous_page)) return NEED_PTL;
  t.cpu.charge(mm.costs.setPteTicks, mm.fns.do_anonymous_page);
  if (mm.pt.flags[slot] === 0) {
    setPte(mm.pt, slot, mm.zeroPfn, PTE_ZERO_PAGE);
    f.faultClass = FAULT_ZERO_PAGE;
  }
  pte_unlock(mm, t, slot);
  return 0;
}

/** alloc_anon_folio with an order above 0: the largest that fits the VMA and only empty PTEs. */
function tryLargeFolio(k: Kernel, t: Task, f: VmFault, wanted: number): boolean {
  const {mm} = k;
  const {vma, vpn, slot} = f;
  if (mm.ptl.busy(slot >>> 9)) return false;
  for (let order = wanted; order >= 2; order--) {
    const n = 1 << order;
    const offset = slot & 511 & (n - 1);
    const first = vpn - offset;
    if (first < vma.start || first + n > vma.end) continue;
    if (!allNone(mm.pt.flags, slot - offset, n)) continue;
    const head = alloc_folio(k, t, order, mm.nodeFor(vma, vpn, t), f.user.memcg);
    if (head <= 0) continue;
    const ticks = pageWorkTicks(k, t, mm.costs.clearPageTicks, mm.pages.nodeOf(head), n);
    t.cpu.charge(ticks, mm.fns.clear_page_erms);
    pte_lock(mm, t, slot, mm.fns.do_anonymous_page);
    t.cpu.charge(mm.costs.newAnonTicks + n * mm.costs.setPteTicks, mm.fns.do_anonymous_page);
    mm.pages.refcount.add(head, n - 1);
    mm.pages.flags[head] |= PG_uptodate;
    add_mm_counter(k, t, f.mm, MM_ANONPAGES, n);
    folio_add_new_anon_rmap_large(k, head, vma, first);
    folio_add_lru_vma(k, t, head, vma);
    const word = dirtyPte(vma);
    for (let i = 0; i < n; i++) setPte(mm.pt, slot - offset + i, head + i, word);
    pte_unlock(mm, t, slot);
    f.faultClass = FAULT_MINOR_ANON;
    return true;
  }
  return false;
}

function allNone(flags: Uint16Array, from: number, n: number): boolean {
  for (let at = from; at < from + n; at++) if (flags[at] !== 0) return false;
  return true;
}
