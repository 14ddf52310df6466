// mm/rmap.c: who maps a page. Adding and removing mappings keeps mapcounts and the page's owner;
// walks go from a page to the VMAs that may map it (anon_vma or i_mmap tree, in Linux's order). A
// walk's caller holds the anon_vma's or the mapping's rwsem. PG_anon_exclusive exists since 5.19;
// before, its place is taken by counting (memory_wp.ts).

import {assert} from '../../machine/assert.ts';
import {pteSlot, type UserPgd, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {hasPfn, PTE_HUGE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {addPteMapping, folio_mapped, removePteMapping} from './folio_counts.ts';
import {
  compound_head,
  folio_nr_pages,
  folio_test_anon,
  folio_test_large,
  MAPPING_ANON,
  MAPPING_FILE,
  mappingId,
  mappingKind,
  type Pages,
  page_pgoff,
  setMapping,
  setMappingOwner,
} from './page.ts';
import {PG_anon_exclusive, PG_swapbacked} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import {linear_page_index, type VmArea, vma_address} from './vma.ts';

/** folio_add_new_anon_rmap for a folio of one page: exclusive to the VMA's anon_vma. */
export function folio_add_new_anon_rmap(k: Kernel, pfn: number, vma: VmArea, vpn: number): void {
  const {pages} = k.mm;
  assert(vma.anonVma !== null, 'anonymous page without anon_vma');
  pages.flags[pfn] |= PG_swapbacked | PG_anon_exclusive;
  setMapping(pages, pfn, MAPPING_ANON, vma.anonVma.id, linear_page_index(vma, vpn));
  addPteMapping(pages, pfn, pfn);
}

/** folio_add_new_anon_rmap for a large folio mapped by PTEs from `vpn` on. */
export function folio_add_new_anon_rmap_large(
  k: Kernel,
  head: number,
  vma: VmArea,
  vpn: number,
): void {
  const {pages} = k.mm;
  assert(vma.anonVma !== null, 'anonymous page without anon_vma');
  pages.flags[head] |= PG_swapbacked;
  setMapping(pages, head, MAPPING_ANON, vma.anonVma.id, linear_page_index(vma, vpn));
  const end = head + folio_nr_pages(pages, head);
  for (let pfn = head; pfn < end; pfn++) {
    pages.flags[pfn] |= PG_anon_exclusive;
    addPteMapping(pages, head, pfn);
  }
}

/** folio_add_anon_rmap_pte: an anonymous folio that had an owner before (swap-in, migration). */
export function folio_add_anon_rmap_pte(
  k: Kernel,
  pfn: number,
  vma: VmArea,
  vpn: number,
  exclusive: boolean,
): void {
  const {pages} = k.mm;
  const head = compound_head(pages, pfn);
  if (!folio_mapped(pages, head) && !folio_test_anon(pages, head)) {
    const anon = exclusive ? vma.anonVma : (vma.anonVma?.rootVma ?? null);
    assert(anon !== null, 'anonymous page without anon_vma');
    const index = linear_page_index(vma, vpn) - (pfn - head);
    setMapping(pages, head, MAPPING_ANON, anon.id, index);
  }
  addPteMapping(pages, head, pfn);
  if (exclusive) pages.flags[pfn] |= PG_anon_exclusive;
}

/** folio_add_file_rmap_pte. */
export function folio_add_file_rmap_pte(pages: Pages, head: number, pfn: number): void {
  addPteMapping(pages, head, pfn);
}

/**
 * folio_remove_rmap_pte; a large folio that is now partly unmapped goes onto the deferred split
 * list.
 */
export function folio_remove_rmap_pte(k: Kernel, t: Task, head: number, pfn: number): void {
  const {pages, hooks} = k.mm;
  const last = removePteMapping(pages, head, pfn);
  if (!last || !folio_test_large(pages, head) || hooks.deferred_split_folio === null) return;
  if (folio_test_anon(pages, head)) {
    hooks.deferred_split_folio(t, head, folio_mapped(pages, head));
  }
}

/** folio_move_anon_rmap: the page belongs to this VMA alone from now on. */
export function folio_move_anon_rmap(pages: Pages, head: number, vma: VmArea): void {
  if (vma.anonVma !== null) setMappingOwner(pages, head, MAPPING_ANON, vma.anonVma.id);
}

/**
 * What a walk is at: the VMA, its mm, and the virtual page that maps the folio's first page within
 * the VMA.
 */
export type RmapVisitor = (vma: VmArea, user: UserMm, vpn: number) => boolean;

/**
 * rmap_walk: all VMAs that may map pages of the folio, with the address of its first page that lies
 * in the VMA. `visit` returns false to stop. VMAs are collected first, so that a visitor may change
 * page tables; trees must not change meanwhile.
 */
export function rmap_walk(k: Kernel, head: number, visit: RmapVisitor): boolean {
  for (const {vma, user, vpn} of rmap_list(k, head)) if (!visit(vma, user, vpn)) return false;
  return true;
}

/** One place where a folio may be mapped. */
export interface RmapPlace {
  readonly vma: VmArea;
  readonly user: UserMm;
  readonly vpn: number;
}

/** The places of rmap_walk as a list, for walkers that sleep between them. */
export function rmap_list(k: Kernel, head: number): RmapPlace[] {
  const {mm} = k;
  const {pages} = mm;
  const places: RmapPlace[] = [];
  const id = mappingId(pages, head);
  if (id === 0) return places;
  const kind = mappingKind(pages, head);
  const first = page_pgoff(pages, head);
  const last = first + folio_nr_pages(pages, head) - 1;
  if (kind === MAPPING_ANON) {
    const anon = mm.anon.find(id);
    if (anon === null) return places;
    const {forest} = mm.anon;
    for (let node = forest.iterFirst(anon, first, last); node !== 0; ) {
      addPlace(k, places, forest.item[node]!, first, last);
      node = forest.iterNext(node, first, last);
    }
  } else if (kind === MAPPING_FILE) {
    const mapping = mm.files.find(id);
    if (mapping === null) return places;
    const {forest} = mm.files;
    for (let node = forest.iterFirst(mapping, first, last); node !== 0; ) {
      addPlace(k, places, forest.item[node]!, first, last);
      node = forest.iterNext(node, first, last);
    }
  }
  return places;
}

function addPlace(k: Kernel, places: RmapPlace[], vma: VmArea, first: number, last: number): void {
  const user = k.mm.byId(vma.space.mmId);
  if (user === null) return;
  for (let index = first; index <= last; index++) {
    const vpn = vma_address(vma, index);
    if (vpn < 0) continue;
    places.push({vma, user, vpn});
    return;
  }
}

/**
 * page_vma_mapped_walk for one page: slot of the entry (PTE, or huge PMD/PUD) at `vpn` that holds a
 * pfn of this folio, present or a migration or device entry; -1 when the VMA does not map it there.
 */
export function page_mapped_slot(k: Kernel, pgd: UserPgd, vpn: number, head: number): number {
  const {pt, pages} = k.mm;
  let slot = pteSlot(pgd, vpn);
  if (slot < 0) {
    slot = walkSlot(pgd, vpn);
    if ((pt.flags[slot] & PTE_HUGE) === 0) return -1;
  }
  if (!hasPfn(pt.flags[slot])) return -1;
  const pfn = pt.entries[slot] & 0x7fff_ffff;
  return pfn >= head && pfn < head + folio_nr_pages(pages, head) ? slot : -1;
}
