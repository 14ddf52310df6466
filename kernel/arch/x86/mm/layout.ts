// The kernel half of the virtual address space, per paging mode: where things are and what one
// synchronised entry spans.
//
// "Synchronised entry" is the level that every PGD has its own copy of and that can therefore go
// stale: PGD entries on 2-level (4 MB), 4-level (512 GB) and 5-level (256 TB) kernels, kernel PMD
// entries (2 MB) on PAE. All addresses are page numbers: address >>> 12 as an unsigned 52-bit
// integer. No KASLR. The 32-bit numbers are those of a kernel with 896 MB of lowmem (the boot
// message "virtual kernel memory layout"); the 64-bit ones are from
// Documentation/x86/x86_64/mm.txt.

import type {Choice} from '../../../design.ts';

export type Paging = Choice<'paging'>;

/** A paging mode's kernel half. Ranges are inclusive of their last page. */
export interface PagingLayout {
  readonly paging: Paging;
  readonly is64: boolean;
  /** First page of the kernel half. */
  readonly kernelBase: number;
  /** log2 of the pages that one synchronised entry spans, and how many such entries there are. */
  readonly entryShift: number;
  readonly entries: number;
  /** log2 of the pages that one entry spans at each level below, top down; the last is 0, a PTE. */
  readonly lowerShifts: readonly number[];
  /** SHARED_KERNEL_PMD: the synchronised level is one page for everybody, PGDs are not listed. */
  readonly sharedKernelPmd: boolean;
  /** Bytes of the kernel half that pgd_alloc copies. */
  readonly copiedBytes: number;
  /** PMD pages that pgd_alloc preallocates (PAE only). */
  readonly preallocatedPmds: number;
  /** Xen PV: page tables are pinned read-only and written by hypercall. */
  readonly xen: boolean;
  readonly directMap: number;
  readonly directMapLast: number;
  readonly VMALLOC_START: number;
  readonly VMALLOC_END: number;
  readonly vmemmap: number;
  /** Single entries that are populated from boot on: kernel text, espfix, fixmap. */
  readonly bootEntries: readonly number[];
}

/** Page number of the 64-bit address with `high` as its upper 32 bits and zeros below. */
function page64(high: number): number {
  return high * 2 ** 20;
}

const TB_PAGES = 2 ** 28;

const FOUR_LEVEL: PagingLayout = {
  paging: '4-level',
  is64: true,
  kernelBase: page64(0xffff8000),
  entryShift: 27,
  entries: 256,
  lowerShifts: [18, 9, 0],
  sharedKernelPmd: false,
  copiedBytes: 2048,
  preallocatedPmds: 0,
  xen: false,
  directMap: page64(0xffff8800),
  directMapLast: page64(0xffff8800) + 64 * TB_PAGES - 1,
  VMALLOC_START: page64(0xffffc900),
  VMALLOC_END: page64(0xffffc900) + 32 * TB_PAGES - 1,
  vmemmap: page64(0xffffea00),
  // espfix (-1 TB), and the top entry: EFI region, kernel text, modules, fixmap.
  bootEntries: [page64(0xffffff00), page64(0xffffff80)],
};

const FIVE_LEVEL: PagingLayout = {
  ...FOUR_LEVEL,
  paging: '5-level',
  kernelBase: page64(0xff000000),
  entryShift: 36,
  lowerShifts: [27, 18, 9, 0],
  directMap: page64(0xff110000),
  directMapLast: page64(0xff110000) + 32 * 1024 * TB_PAGES - 1,
  VMALLOC_START: page64(0xffa00000),
  VMALLOC_END: page64(0xffa00000) + 12800 * TB_PAGES - 1,
  vmemmap: page64(0xffd40000),
  // espfix, text, modules and EFI are all in the last 256 TB.
  bootEntries: [page64(0xffff0000)],
};

const TWO_LEVEL: PagingLayout = {
  paging: '2-level',
  is64: false,
  kernelBase: 0xc0000,
  entryShift: 10,
  entries: 256,
  lowerShifts: [0],
  sharedKernelPmd: false,
  copiedBytes: 1024,
  preallocatedPmds: 0,
  xen: false,
  directMap: 0xc0000,
  directMapLast: 0xf7fff,
  VMALLOC_START: 0xf8800,
  VMALLOC_END: 0xff7fd,
  vmemmap: -1,
  // pkmap and fixmap: FIXADDR_TOP is 0xfffff000.
  bootEntries: [0xff800, 0xffc00],
};

const PAE: PagingLayout = {
  ...TWO_LEVEL,
  paging: 'pae-shared',
  entryShift: 9,
  entries: 512,
  sharedKernelPmd: true,
  copiedBytes: 8,
  preallocatedPmds: 3,
  VMALLOC_START: 0xf8800,
  VMALLOC_END: 0xff9fd,
  bootEntries: [0xffa00, 0xffe00],
};

const LAYOUTS: Record<Paging, PagingLayout> = {
  '2-level': TWO_LEVEL,
  'pae-shared': PAE,
  'pae-private': {
    ...PAE,
    paging: 'pae-private',
    sharedKernelPmd: false,
    copiedBytes: 4096,
    preallocatedPmds: 4,
    xen: true,
  },
  '4-level': FOUR_LEVEL,
  '4-level-xen': {...FOUR_LEVEL, paging: '4-level-xen', xen: true},
  '5-level': FIVE_LEVEL,
};

/**
 * The kernel half under `paging`. `since420`: the direct map begins 8 TB higher because the LDT
 * remap of page-table isolation took its place (kernels from 4.20 on).
 */
export function pagingLayout(paging: Paging, since420: boolean): PagingLayout {
  const layout = LAYOUTS[paging];
  if (!since420 || layout.paging !== '4-level') return layout;
  const directMap = page64(0xffff8880);
  return {...layout, directMap, directMapLast: directMap + 64 * TB_PAGES - 1};
}
