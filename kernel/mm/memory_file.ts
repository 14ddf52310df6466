// mm/memory.c: first accesses to file mappings, shared memory and special mappings (do_fault), and
// filemap_map_pages, 6.18.
//
// A read maps the cached pages around the address that are not mapped yet: a window of 16 pages
// that begins at a multiple of 16 (or at the VMA's start, if that comes later, and then reaches as
// many pages further), cut at the ends of the PTE table, the VMA and the file; one rss record for
// all. A write to a private mapping copies the page at once (do_cow_fault).

import {setPte} from '../arch/x86/mm/pgtable.ts';
import {PTE_SPECIAL, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {filemap_get_page, shmem_add_page} from './filemap.ts';
import {addPteMappings} from './folio_counts.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {alloc_anon_page, anon_vma_prepare} from './memory_anon.ts';
import {NEED_HOOK, NEED_MEMORY, NEED_PTL, NEED_READ, NEED_SHMEM} from './memory_need.ts';
import {
  dirtyPte,
  PTE_MAPPED,
  PTE_WRITTEN,
  pageWorkTicks,
  pte_alloc,
  pte_lock,
  pte_unlock,
} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {compound_head, folio_order} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_readahead, PG_swapbacked, PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap} from './rmap.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {
  FAULT_COW,
  FAULT_FLAG_WRITE,
  FAULT_MINOR_FILE,
  UFFD_REASON_MINOR,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  type VmFault,
} from './vm_fault.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {
  VM_HIGH_UFFD_MINOR,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_UFFD_MISSING,
  VM_UFFD_WP,
  VM_WRITE,
} from './vma_flags.ts';

/** fault_around_bytes, in pages. */
const FAULT_AROUND_PAGES = 16;

/** do_fault: the PTE is none and the VMA has vm_ops. */
export function do_fault(k: Kernel, t: Task, f: VmFault): number {
  const {vma} = f;
  if (vma.ops === 'dax' || vma.ops === 'pfnmap' || vma.ops === 'hugetlb')
    return specialFault(k, t, f);
  if ((f.flags & FAULT_FLAG_WRITE) === 0) return do_read_fault(k, t, f);
  return (vma.flags & VM_SHARED) === 0 ? do_cow_fault(k, t, f) : do_shared_fault(k, t, f);
}

/** mm_counter_file. */
export function mm_counter_file(k: Kernel, pfn: number): number {
  const {pages} = k.mm;
  const word = pages.flags[compound_head(pages, pfn)];
  return (word & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES;
}

function do_read_fault(k: Kernel, t: Task, f: VmFault): number {
  const {vma, vpn} = f;
  const slot = pte_alloc(k, t, f.user, vpn);
  if (slot < 0) return 0;
  f.slot = slot;
  const {mm} = k;
  if (vma.mapping !== null && mm.faultAround && vma.ops !== 'special') {
    const minor = (vma.flags & VM_UFFD_WP) !== 0 || (vma.flagsHigh & VM_HIGH_UFFD_MINOR) !== 0;
    if (!minor) {
      const done = do_fault_around(k, t, f);
      if (done === MAPPED) return 0;
      if (done !== 0) return done;
    }
  }
  const pfn = __do_fault(k, t, f);
  if (pfn <= 0) return failed(pfn);
  return finish_fault(k, t, f, pfn, readPte(vma));
}

/**
 * vm_page_prot of a read: shared memory without a file system behind it needs no notice of the
 * first write, unless soft-dirty bits are watched.
 */
function readPte(vma: VmArea): number {
  const writable = VM_SHARED | VM_WRITE | VM_SOFTDIRTY;
  const direct = vma.ops === 'shmem' && (vma.flags & (writable | VM_UFFD_WP)) === writable;
  return direct ? PTE_MAPPED | PTE_WRITE : PTE_MAPPED;
}

/** __do_fault gave no page: what the caller returns. */
function failed(result: number): number {
  if (result === 0) return VM_FAULT_SIGBUS;
  return result === NO_MEMORY ? VM_FAULT_OOM : result;
}
const NO_MEMORY = -100;

const MAPPED = 1;

/**
 * do_fault_around: MAPPED when the page at the address was mapped, NEED_PTL, or 0 to go on with
 * __do_fault.
 */
function do_fault_around(k: Kernel, t: Task, f: VmFault): number {
  const {vma, vpn, slot} = f;
  const offset = slot & 511;
  const intoVma = vpn - vma.start;
  const from = Math.max(offset - (offset % FAULT_AROUND_PAGES), offset - Math.min(offset, intoVma));
  const to = Math.min(from + FAULT_AROUND_PAGES, 512, offset + vma.pages - intoVma);
  const mapping = vma.mapping!;
  const first = linear_page_index(vma, vpn) + from - offset;
  const end = Math.min(first + to - from, mapping.sizePages);
  const {mm} = k;
  if (end <= first) return 0;
  if (mm.ptl.busy(slot >>> 9)) return NEED_PTL;
  const {pt, pages, costs, fns} = mm;
  let mapped = 0;
  let locked = false;
  let found = false;
  const word = readPte(vma);
  t.cpu.charge(costs.mapPagesBaseTicks, fns.filemap_map_pages);
  /** Slot of page 0 of the file. */
  const base = slot - offset + from - first;
  let member = MM_FILEPAGES;
  for (let index = first; index < end; ) {
    const pfn = filemap_get_page(k, t, mapping, index);
    if (pfn === 0) {
      index++;
      continue;
    }
    if (!locked) {
      pte_lock(mm, t, slot, fns.filemap_map_pages);
      member = mm_counter_file(k, pfn);
      locked = true;
    }
    const head = compound_head(pages, pfn);
    const start = index - (pfn - head);
    const stop = start + 2 ** folio_order(pages, head);
    const begin = index;
    index = stop;
    if ((pages.flags[head] & PG_readahead) !== 0) continue;
    const whole = stop - start > 1 && wholeFolioFits(k, f, start, stop);
    const last = whole ? stop : Math.min(stop, end);
    const page = whole ? start : begin;
    if (pt.flags[slot] === 0 && base + page <= slot && slot < base + last) found = true;
    mapped += set_pte_range(mm, head, base + page, head + page - start, last - page, word);
  }
  if (!locked) return 0;
  t.cpu.charge(mapped * costs.mapPageTicks, fns.filemap_map_pages);
  add_mm_counter(k, t, f.mm, member, mapped);
  pte_unlock(mm, t, slot);
  if (!found) return 0;
  f.faultClass = FAULT_MINOR_FILE;
  return MAPPED;
}

/**
 * set_pte_range of `nr` pages of a folio, from `pfn` on, where no entry is yet. Returns how many
 * entries it set.
 */
function set_pte_range(
  {pt, pages}: Mm,
  head: number,
  slot: number,
  pfn: number,
  nr: number,
  word: number,
): number {
  const {entries, flags} = pt;
  const {mapcount} = pages;
  let mapped = 0;
  let first = 0;
  for (let n = 0; n < nr; n++) {
    if (flags[slot + n] !== 0) continue;
    entries[slot + n] = pfn + n;
    flags[slot + n] = word;
    if (mapcount.isZero(pfn + n)) first++;
    mapcount.increment(pfn + n);
    mapped++;
  }
  pt.population[slot >>> 9] += mapped;
  pages.refcount.add(head, mapped);
  addPteMappings(pages, head, mapped, first);
  return mapped;
}

/**
 * True when a fault at f.vpn maps the whole folio that holds pages [start, stop) of the file
 * (6.18): it must lie within the VMA, the PTE table and the file.
 */
function wholeFolioFits(k: Kernel, f: VmFault, start: number, stop: number): boolean {
  const {vma, vpn, slot} = f;
  const index = linear_page_index(vma, vpn);
  if (!k.mm.mapsWholeFolios || start < vma.pgoff || stop > vma.pgoff + vma.pages) return false;
  if (vma.mapping!.host === 'file' && stop > vma.mapping!.sizePages) return false;
  const offset = slot & 511;
  return offset + start - index >= 0 && offset + stop - index <= 512;
}

/**
 * vm_ops->fault: the pfn of the page that belongs at the address, with no reference of its own
 * (nothing takes it away before it is mapped, as this runs through). 0: SIGBUS; negative: a NEED_
 * number or NO_MEMORY.
 */
function __do_fault(k: Kernel, t: Task, f: VmFault): number {
  const {vma} = f;
  const {mm} = k;
  const index = linear_page_index(vma, f.vpn);
  t.cpu.charge(mm.costs.filemapFaultTicks, mm.fns.filemap_fault);
  if (vma.ops === 'special') return mm.specialPage(t, index);
  const {mapping} = vma;
  if (mapping === null || index >= mapping.sizePages) return 0;
  const pfn = filemap_get_page(k, t, mapping, index);
  if (vma.uffd !== 0 && isMinorFault(mm, mapping, index, pfn, vma)) {
    f.uffdReason = UFFD_REASON_MINOR;
    return NEED_HOOK;
  }
  if (pfn !== 0) {
    // page_cache_async_ra: what comes next is cached already, or nobody waits for it.
    if (mapping.host === 'file') mm.pages.flags[pfn] &= ~PG_readahead;
    return pfn;
  }
  if (mapping.host !== 'shmem') return NEED_READ;
  if (mm.files.value(mapping, index) >= 0) return NEED_SHMEM;
  if (vma.uffd !== 0 && (vma.flags & VM_UFFD_MISSING) !== 0) {
    f.uffdReason = VM_UFFD_MISSING;
    return NEED_HOOK;
  }
  const fresh = shmem_add_page(k, t, mapping, index, f.prealloc);
  if (fresh > 0) f.prealloc = 0;
  return fresh === 0 ? NO_MEMORY : fresh;
}

/**
 * shmem_get_folio_gfp: the page is in the file, cached or swapped out, and userfaultfd wants to
 * hear of that.
 */
function isMinorFault(
  mm: Mm,
  mapping: AddressSpace,
  index: number,
  pfn: number,
  vma: VmArea,
): boolean {
  if ((vma.flagsHigh & VM_HIGH_UFFD_MINOR) === 0 || mapping.host !== 'shmem') return false;
  return pfn !== 0 || mm.files.value(mapping, index) >= 0;
}

/**
 * finish_fault: maps the page with `word`, or the whole large folio around it where nothing of it
 * is mapped yet (6.18); a page that somebody mapped meanwhile stays.
 */
function finish_fault(k: Kernel, t: Task, f: VmFault, pfn: number, word: number): number {
  const {mm} = k;
  const {slot} = f;
  if (!pte_lock(mm, t, slot, mm.fns.filemap_fault)) return NEED_PTL;
  const {pages, pt, costs} = mm;
  if (pt.flags[slot] === 0) {
    const head = compound_head(pages, pfn);
    const count = 2 ** folio_order(pages, head);
    const from = count === 1 ? slot : wholeFolioSlot(k, f, pfn - head, count);
    const first = from < 0 ? slot : from;
    const mapped = from < 0 ? 1 : count;
    set_pte_range(mm, head, first, pfn + first - slot, mapped, word);
    t.cpu.charge(costs.setPteTicks + mapped * costs.mapPageTicks, mm.fns.filemap_fault);
    add_mm_counter(k, t, f.mm, mm_counter_file(k, pfn), mapped);
    f.faultClass = FAULT_MINOR_FILE;
  }
  pte_unlock(mm, t, slot);
  return 0;
}

/**
 * Slot of the folio's first page, when all `count` of it may be mapped; `into` pages of it lie
 * before the fault. -1: no.
 */
function wholeFolioSlot(k: Kernel, f: VmFault, into: number, count: number): number {
  const {vma, vpn, slot} = f;
  if (vma.mapping === null || vma.uffd !== 0) return -1;
  const start = linear_page_index(vma, vpn) - into;
  if (!wholeFolioFits(k, f, start, start + count)) return -1;
  const {flags} = k.mm.pt;
  const first = slot - into;
  for (let at = first; at < first + count; at++) if (flags[at] !== 0) return -1;
  return first;
}

/** do_cow_fault: a private mapping is written before it was read. */
function do_cow_fault(k: Kernel, t: Task, f: VmFault): number {
  const {vma} = f;
  const {mm} = k;
  const slot = pte_alloc(k, t, f.user, f.vpn);
  if (slot < 0) return 0;
  f.slot = slot;
  anon_vma_prepare(k, t, vma, f.flags);
  const source = __do_fault(k, t, f);
  if (source <= 0) return failed(source);
  if (mm.ptl.busy(slot >>> 9)) return NEED_PTL;
  const pfn = alloc_anon_page(k, t, f);
  if (pfn <= 0) return pfn < 0 ? NEED_MEMORY : VM_FAULT_OOM;
  const {pages, pt, costs, fns} = mm;
  t.cpu.charge(
    pageWorkTicks(k, t, costs.copyPageTicks, pages.nodeOf(pfn), 1),
    fns.copy_mc_to_kernel,
  );
  if (pages.hasContent) pages.content[pfn] = pages.content[source];
  pte_lock(mm, t, slot, fns.do_cow_fault);
  if (pt.flags[slot] !== 0) {
    pte_unlock(mm, t, slot);
    folio_put(k, t, pfn);
    return 0;
  }
  t.cpu.charge(costs.newAnonTicks + costs.setPteTicks, fns.do_cow_fault);
  pages.flags[pfn] |= PG_uptodate;
  folio_add_new_anon_rmap(k, pfn, vma, f.vpn);
  folio_add_lru_vma(k, t, pfn, vma);
  setPte(pt, slot, pfn, dirtyPte(vma));
  add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  pte_unlock(mm, t, slot);
  f.faultClass = FAULT_COW;
  return 0;
}

/** do_shared_fault: page_mkwrite, map writable, account the dirty page. */
function do_shared_fault(k: Kernel, t: Task, f: VmFault): number {
  const slot = pte_alloc(k, t, f.user, f.vpn);
  if (slot < 0) return 0;
  f.slot = slot;
  const pfn = __do_fault(k, t, f);
  if (pfn <= 0) return failed(pfn);
  const result = finish_fault(k, t, f, pfn, PTE_MAPPED | PTE_WRITTEN);
  if (result === 0) fault_dirty_shared_page(k, t, pfn, f.vma);
  return result;
}

/** fault_dirty_shared_page, with page_mkwrite's share of the file system. */
export function fault_dirty_shared_page(k: Kernel, t: Task, pfn: number, vma: VmArea): void {
  const {pages, costs, fns} = k.mm;
  pages.flags[compound_head(pages, pfn)] |= PG_dirty;
  if (vma.ops === 'file') t.cpu.charge(costs.pageMkwriteTicks, fns.do_shared_fault);
}

/** Mappings that are no page cache: pfn maps (vvar) map a special entry; DAX is somebody else's. */
function specialFault(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  if (f.vma.ops !== 'pfnmap') {
    f.hook = mm.hooks.dax_fault;
    return f.hook === null ? VM_FAULT_SIGBUS : NEED_HOOK;
  }
  const slot = pte_alloc(k, t, f.user, f.vpn);
  if (slot < 0) return 0;
  f.slot = slot;
  if (!pte_lock(mm, t, slot, mm.fns.do_read_fault)) return NEED_PTL;
  t.cpu.charge(mm.costs.setPteTicks, mm.fns.do_read_fault);
  const write = (f.flags & FAULT_FLAG_WRITE) === 0 ? 0 : PTE_WRITTEN;
  if (mm.pt.flags[slot] === 0) setPte(mm.pt, slot, mm.zeroPfn, PTE_MAPPED | PTE_SPECIAL | write);
  pte_unlock(mm, t, slot);
  f.faultClass = FAULT_MINOR_FILE;
  return 0;
}
