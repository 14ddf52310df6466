// drivers/dax and fs/dax.c: files whose pages are the memory itself. Persistent memory is a run of
// page frames taken out of a node for good, as memmap=nn!ss does at boot.
//
// device-dax (/dev/daxX.Y) has an alignment, 4 KB, 2 MB or 1 GB, and every fault maps exactly that
// much; it must be mapped shared, and no VMA of it can be split within a unit (dev_dax_may_split).
// A file of a DAX file system maps 2 MB where its extents and the VMA allow it, else pages; there
// are no 1 GB entries of files. Writes to a file are announced to the file system (pfn_mkwrite), to
// a device they are not.
//
// Since 6.15 the pages are folios that mappings count; before, entries are special (pXd_devmap).

import {HPAGE_PUD_NR} from '../arch/x86/mm/pud.ts';
import type {Kernel} from '../kernel.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {prep_compound_page} from './page.ts';
import {PG_device} from './page_flags.ts';
import type {VmArea, VmaProps} from './vma.ts';
import {VM_HUGEPAGE, VM_MAYSHARE, VM_MIXEDMAP, VM_SOFTDIRTY} from './vma_flags.ts';

const PMD_PAGES = 512;

/** Memory behind a DAX file. */
export interface DaxMemory {
  readonly kind: 'device' | 'fs';
  /** Page frame of page 0; a multiple of `alignPages`. */
  readonly firstPfn: number;
  /**
   * device: the unit of every fault. fs: the size of extents, 512 when 2 MB entries are possible.
   */
  readonly alignPages: 1 | 512 | 262144;
  /** fs: 2 MB units that are mapped by pages (1) or as a whole (2); by unit. */
  readonly entries: Map<number, 1 | 2>;
}

/** What dax_create is asked for. */
export interface DaxWish {
  readonly kind: 'device' | 'fs';
  readonly pages: number;
  readonly alignPages: 1 | 512 | 262144;
  readonly node: number;
}

/** Do mappings of DAX count (6.15+)? */
export function daxCounts(k: Kernel): boolean {
  return !isBefore(k.facts.version, '6.15');
}

/** A new DAX file of whole units, null when the node has no such memory left. */
export function dax_create(k: Kernel, wish: DaxWish): AddressSpace | null {
  const {mm} = k;
  const {kind, alignPages} = wish;
  const pages = Math.ceil(wish.pages / alignPages) * alignPages;
  const firstPfn = takeMemory(k, wish.node, pages, alignPages);
  if (firstPfn === 0) return null;
  const mapping = mm.files.create('dax', pages);
  mapping.dax = {kind, firstPfn, alignPages, entries: new Map()};
  preparePages(k, firstPfn, pages, kind === 'device' ? alignPages : 1);
  return mapping;
}

/** A run of frames, in blocks of powers of two that lie one after the other. */
function takeMemory(k: Kernel, node: number, pages: number, align: number): number {
  const {buddy} = k.mm.zones[node];
  const unit = Math.max(align, 1024);
  const size = Math.max(unit, 2 ** Math.ceil(Math.log2(pages)));
  if (size <= HPAGE_PUD_NR) return buddy.takeContig(size);
  // Larger than 1 GB: as many runs of 1 GB as it takes, each below the one before it.
  const runs = Math.ceil(pages / HPAGE_PUD_NR);
  let first = 0;
  for (let n = 0; n < runs; n++) {
    const run = buddy.takeContig(HPAGE_PUD_NR);
    const follows = first === 0 || run === first - HPAGE_PUD_NR;
    if (run !== 0 && follows) {
      first = run;
      continue;
    }
    if (run !== 0) buddy.freeContig(run, HPAGE_PUD_NR);
    if (n > 0) buddy.freeContig(first, n * HPAGE_PUD_NR);
    return 0;
  }
  return first;
}

/** memremap_pages: the struct pages, folios of the device's unit where mappings count (6.15+). */
function preparePages(k: Kernel, first: number, pages: number, unit: number): void {
  const all = k.mm.pages;
  if (!daxCounts(k)) return;
  const order = Math.log2(unit);
  for (let pfn = first; pfn < first + pages; pfn += unit) {
    all.flags[pfn] = PG_device;
    if (order > 0) prep_compound_page(all, pfn, order);
    all.refcount.set(pfn, 1);
  }
}

/** Size of the entries that a fault of the device maps, as a level: 0, 1 or 2. */
export function daxLevel({alignPages}: DaxMemory): number {
  return alignPages === HPAGE_PUD_NR ? 2 : alignPages === PMD_PAGES ? 1 : 0;
}

/**
 * dax_mmap: what the driver or file system makes of the new VMA's properties. As any new one it
 * counts as written to.
 */
export function daxProps(k: Kernel, props: VmaProps): VmaProps {
  const mixed = isBefore(k.facts.version, '4.19') ? VM_MIXEDMAP : 0;
  return {...props, flags: props.flags | VM_HUGEPAGE | VM_SOFTDIRTY | mixed};
}

/** check_vma of device-dax: shared, and both ends at multiples of the unit. */
export function dev_dax_check_vma(vma: VmArea): boolean {
  const {dax} = vma.mapping!;
  if (dax === null || dax.kind !== 'device') return true;
  const {alignPages} = dax;
  if ((vma.flags & VM_MAYSHARE) === 0) return false;
  return vma.start % alignPages === 0 && vma.end % alignPages === 0;
}
