// Faults on DAX mappings (dev_dax_huge_fault, dax_iomap_fault, vmf_insert_*). One hook for all
// levels: it tries what handle_mm_fault would try one after the other, 1 GB, 2 MB, a page, as far
// as the walk found no table, and maps it there. Nothing is invalidated: absent entries become
// present, and a leaf that gains write access keeps its page. A write to a private file copies the
// page (anonymous memory from then on).

import type {Code} from '../../machine/process.ts';
import {setHuge, setPte, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {pud_mkwrite} from '../arch/x86/mm/pud.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {type DaxMemory, daxCounts, daxLevel, dev_dax_check_vma} from './dax.ts';
import {addEntireMapping, addPteMapping} from './folio_counts.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {__split_huge_pmd} from './huge_memory_split.ts';
import {newLeaf} from './huge_memory_pud.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {dirtyPte, pageWorkTicks, pte_lock, pte_unlock, tables_alloc} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {vma_wants_writenotify} from './mprotect_walk.ts';
import {compound_head, MAPPING_FILE, mappingId, prep_compound_page, setMapping} from './page.ts';
import {alloc_folio_slow, folio_put} from './page_alloc.ts';
import {PG_device, PG_head, PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap} from './rmap.ts';
import {MM_ANONPAGES, MM_FILEPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {
  FAULT_COW,
  FAULT_FLAG_WRITE,
  FAULT_HUGE,
  FAULT_MINOR_FILE,
  FAULT_REUSE,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  type VmFault,
} from './vm_fault.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {VM_SHARED, VM_WRITE} from './vma_flags.ts';

const LEVEL_SPAN = [1, 512, 262144] as const;

/** Installs the hook. */
export function install_dax(k: Kernel, mm: Mm): void {
  mm.hooks.dax_fault = (t, f) => dax_fault(k, t, f);
}

/** A fault on a DAX VMA: 0 or VM_FAULT_ bits. */
function* dax_fault(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {mm} = k;
  const {vma} = f;
  const mapping = vma.mapping!;
  const dax = mapping.dax;
  if (dax === null || !dev_dax_check_vma(vma)) return VM_FAULT_SIGBUS;
  const {costs, fns} = hugetlbWork(k);
  const device = dax.kind === 'device';
  const fn = device ? fns.dev_dax_huge_fault : fns.dax_iomap_fault;
  t.cpu.charge(device ? costs.devDaxFaultTicks : costs.daxIomapFaultTicks, fn);
  if (linear_page_index(vma, f.vpn) >= mapping.sizePages) return VM_FAULT_SIGBUS;
  const write = (f.flags & FAULT_FLAG_WRITE) !== 0;
  const slot = walkSlot(f.user.pgd, f.vpn);
  const found = mm.pt.level[slot >>> 9];
  if ((mm.pt.flags[slot] & PTE_HUGE) !== 0) {
    if (write && (vma.flags & VM_SHARED) !== 0) return yield* upgrade(k, t, f, slot, fn);
    if (!write) return 0;
    // A private file's 2 MB leaf is written to: it goes, and the page is copied.
    yield* __split_huge_pmd(mm.huge!, t, vma, slot, f.vpn);
    return yield* cowPage(k, t, f, dax);
  }
  const level = levelFor(k, f, dax, found, write);
  if (level < 0) return VM_FAULT_SIGBUS;
  if (level === 0) {
    if (write && (vma.flags & VM_SHARED) === 0) return yield* cowPage(k, t, f, dax);
    return yield* insertPage(k, t, f, mapping, dax, write);
  }
  return yield* insertLeaf(k, t, f, mapping, dax, level, write);
}

/** Level at which this fault maps, at most `found`; -1 for SIGBUS. */
function levelFor(k: Kernel, f: VmFault, dax: DaxMemory, found: number, write: boolean): number {
  const {vma, vpn} = f;
  if (dax.kind === 'device') {
    const level = daxLevel(dax);
    if (level > found || (level === 2 && isBefore(k.facts.version, '4.11'))) return -1;
    return level;
  }
  if (dax.alignPages === 1 || found === 0) return 0;
  const index = linear_page_index(vma, vpn);
  const unit = Math.floor(index / 512);
  const first = vpn - (vpn % 512);
  const fits =
    index % 512 === vpn % 512 &&
    first >= vma.start &&
    first + 512 <= vma.end &&
    (unit + 1) * 512 <= vma.mapping!.sizePages;
  const cow = write && (vma.flags & VM_SHARED) === 0;
  return fits && !cow && dax.entries.get(unit) !== 1 ? 1 : 0;
}

function pfnAt(dax: DaxMemory, index: number): number {
  return dax.firstPfn + index;
}

/** vm_page_prot has the write bit: shared, and nobody wants to hear of the first write. */
function isDirect(vma: VmArea): boolean {
  const shared = VM_SHARED | VM_WRITE;
  return (vma.flags & shared) === shared && !vma_wants_writenotify(vma);
}

/** dax_associate_entry: the folio of a mapped unit knows its file. 6.15+. */
function associate(k: Kernel, mapping: AddressSpace, index: number, pfn: number, n: number): void {
  const {pages} = k.mm;
  if (n === 512 && (pages.flags[pfn] & PG_head) === 0) {
    prep_compound_page(pages, pfn, 9);
    pages.flags[pfn] |= PG_device;
  }
  const head = compound_head(pages, pfn);
  if (mappingId(pages, head) !== 0) return;
  setMapping(pages, head, MAPPING_FILE, mapping.id, index - (pfn - head));
}

/** vmf_insert_folio_pud, _pmd (6.15+), vmf_insert_pfn_pud, _pmd. */
function* insertLeaf(
  k: Kernel,
  t: Task,
  f: VmFault,
  mapping: AddressSpace,
  dax: DaxMemory,
  level: number,
  write: boolean,
): Code<number> {
  const {mm} = k;
  const {vma} = f;
  const span = LEVEL_SPAN[level];
  const first = f.vpn - (f.vpn % span);
  const index = linear_page_index(vma, first);
  const pfn = pfnAt(dax, index);
  const slot = tables_alloc(k, t, f.user, f.vpn, level);
  if (slot < 0) return 0;
  const {fns} = hugetlbWork(k);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fns.dax_iomap_fault)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.dax_iomap_fault);
  }
  if (mm.pt.flags[slot] === 0) {
    if (dax.kind === 'fs') dax.entries.set(Math.floor(index / 512), 2);
    const counted = daxCounts(k);
    const word = newLeaf(isDirect(vma), write, (vma.flags & VM_WRITE) !== 0);
    if (counted) {
      associate(k, mapping, index, pfn, span);
      mm.pages.refcount.increment(pfn);
      addEntireMapping(mm.pages, pfn);
      add_mm_counter(k, t, f.mm, MM_FILEPAGES, span);
    }
    t.cpu.charge(mm.costs.setPteTicks, fns.dax_iomap_fault);
    setHuge(mm.pt, slot, pfn, counted ? word : word | PTE_SPECIAL);
    f.faultClass = FAULT_HUGE;
  }
  pte_unlock(mm, t, slot);
  return 0;
}

/** vmf_insert_page_mkwrite (6.15+), vmf_insert_mixed. */
function* insertPage(
  k: Kernel,
  t: Task,
  f: VmFault,
  mapping: AddressSpace,
  dax: DaxMemory,
  write: boolean,
): Code<number> {
  const {mm} = k;
  const {vma} = f;
  const index = linear_page_index(vma, f.vpn);
  const pfn = pfnAt(dax, index);
  const slot = tables_alloc(k, t, f.user, f.vpn, 0);
  if (slot < 0) return 0;
  const {fns} = hugetlbWork(k);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fns.dax_iomap_fault)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.dax_iomap_fault);
  }
  const word = mm.pt.flags[slot];
  const fresh = newLeaf(isDirect(vma), write, (vma.flags & VM_WRITE) !== 0);
  if (word === 0) {
    if (dax.kind === 'fs') markPages(dax, index);
    const counted = daxCounts(k);
    if (counted) {
      associate(k, mapping, index, pfn, 1);
      const head = compound_head(mm.pages, pfn);
      mm.pages.refcount.increment(head);
      addPteMapping(mm.pages, head, pfn);
      add_mm_counter(k, t, f.mm, MM_FILEPAGES, 1);
    }
    setPte(mm.pt, slot, pfn, counted ? fresh : fresh | PTE_SPECIAL);
    f.faultClass = FAULT_MINOR_FILE;
  } else if (write && (word & PTE_KIND) === PTE_PRESENT) {
    mm.pt.flags[slot] = word | fresh;
    f.faultClass = FAULT_REUSE;
  }
  t.cpu.charge(mm.costs.setPteTicks, fns.dax_iomap_fault);
  pte_unlock(mm, t, slot);
  return 0;
}

/**
 * A unit of the file that pages of are mapped gets no 2 MB entry any more; one that has it keeps
 * it.
 */
function markPages(dax: DaxMemory, index: number): void {
  const unit = Math.floor(index / 512);
  if (!dax.entries.has(unit)) dax.entries.set(unit, 1);
}

/** wp_huge_pud, wp_huge_pmd: the file says that the leaf may be written. */
function* upgrade(k: Kernel, t: Task, f: VmFault, slot: number, fn: number): Code<number> {
  const {mm} = k;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const word = mm.pt.flags[slot];
  if (word === f.word && (word & PTE_KIND) === PTE_PRESENT) {
    const writable = (f.vma.flags & VM_WRITE) !== 0 ? pud_mkwrite(word) : word & ~PTE_WRITE;
    mm.pt.flags[slot] = writable | newLeaf(false, true, false);
    t.cpu.charge(mm.costs.setPteTicks, fn);
    f.faultClass = FAULT_REUSE;
  }
  pte_unlock(mm, t, slot);
  return 0;
}

/** do_cow_fault of a private DAX file, and the copy after its page was mapped. */
function* cowPage(k: Kernel, t: Task, f: VmFault, dax: DaxMemory): Code<number> {
  const {mm} = k;
  const {vma} = f;
  anon_vma_prepare(k, t, vma, f.flags);
  const pfn = yield* alloc_folio_slow(k, t, 0, mm.nodeFor(vma, f.vpn, t), f.user.memcg);
  if (pfn === 0) return VM_FAULT_OOM;
  const source = pfnAt(dax, linear_page_index(vma, f.vpn));
  const {costs, fns, pages} = mm;
  const ticks = pageWorkTicks(k, t, costs.copyPageTicks, pages.nodeOf(pfn), 1);
  t.cpu.charge(ticks, fns.copy_mc_to_kernel);
  if (pages.hasContent) pages.content[pfn] = pages.content[source];
  const slot = tables_alloc(k, t, f.user, f.vpn, 0);
  if (t.cpu.settle()) yield;
  while (slot >= 0 && !pte_lock(mm, t, slot, fns.do_cow_fault)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.do_cow_fault);
  }
  if (slot < 0 || mm.pt.flags[slot] !== 0) {
    if (slot >= 0) pte_unlock(mm, t, slot);
    folio_put(k, t, pfn);
    return 0;
  }
  t.cpu.charge(costs.newAnonTicks + costs.setPteTicks, fns.do_cow_fault);
  markPages(dax, linear_page_index(vma, f.vpn));
  pages.flags[pfn] |= PG_uptodate;
  folio_add_new_anon_rmap(k, pfn, vma, f.vpn);
  folio_add_lru_vma(k, t, pfn, vma);
  setPte(mm.pt, slot, pfn, dirtyPte(vma));
  add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  pte_unlock(mm, t, slot);
  f.faultClass = FAULT_COW;
  return 0;
}
