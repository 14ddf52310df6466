// What of the kernel-PGD machinery a kernel version had. Sources: the commits named; the numbers
// marked RECALLED there or here were not read in a tree.

import type {Kernel} from '../../../kernel.ts';
import {isBefore} from '../../../version.ts';

/** Version-dependent facts of arch/x86/mm. */
export interface PgdFeatures {
  /** kernel_physical_mapping_init calls sync_global_pgds (9b861528a801, 2.6.37 RECALLED). */
  readonly syncsDirectMap: boolean;
  /** remove_pagetable exists (ae9aae9eda2d, 3.9 RECALLED). */
  readonly hasRemovePagetable: boolean;
  /** remove_pagetable frees empty top-level tables (until af2cf278ef4f, 4.8). */
  readonly freesPudTables: boolean;
  /** sync_global_pgds clears copies when the reference is none (9661d5bcd058, 3.19 RECALLED). */
  readonly syncClears: boolean;
  /**
   * unmap_pgd_range frees an empty PUD page (kernel_map_pages_in_pgd came in 3.14 RECALLED; gone by
   * 4.12).
   */
  readonly unmapFreesPud: boolean;
  /**
   * EFI runtime services have a PGD of their own that is synchronised before every call (3.14
   * RECALLED).
   */
  readonly efiPgd: boolean;
  /**
   * 64-bit vmalloc_fault exists (until 5.8). 32-bit always has it (4819e15f740e brought it back).
   */
  readonly vmallocFault: boolean;
  /**
   * switch_mm makes sure that the present stack is mapped in the next PGD (VMAP_STACK, 4.9 to 5.7).
   */
  readonly syncsStackAtSwitch: boolean;
  /**
   * arch_sync_kernel_mappings does something: 32-bit since 5.8, 64-bit in 5.8 and again since 6.18.
   */
  readonly syncsKernelMappings: boolean;
  /** The direct map lies above the LDT remap (4.20). */
  readonly since420: boolean;
}

/**
 * Designs of Molnar's series and what builds on them never clear a PGD entry (patches 01 and 03).
 */
const KEEPS_ENTRIES: ReadonlySet<string> = new Set([
  'lockless-v1',
  'lockless-v2',
  'lockless-2015-09',
  'count-at-switch',
  'sync-at-vmalloc',
]);
/**
 * Designs that bring every PGD up to date before a new mapping is used, and therefore have no
 * vmalloc_fault.
 */
const EAGER: ReadonlySet<string> = new Set(['count-at-switch', 'sync-at-vmalloc']);

/** The facts of the kernel's version under its `pgd` choice. */
export function pgdFeatures(kernel: Kernel): PgdFeatures {
  const {version, design, vmallocFault, vmapStack, removesPgdEntries} = kernel.facts;
  const since = (first: string): boolean => !isBefore(version, first);
  const removes = removesPgdEntries && !KEEPS_ENTRIES.has(design.pgd);
  const is64 = design.paging.startsWith('4') || design.paging === '5-level';
  const eager = EAGER.has(design.pgd);
  const lazy = vmallocFault && !eager && design.pgd !== 'preallocated';
  return {
    syncsDirectMap: since('2.6.37'),
    hasRemovePagetable: since('3.9'),
    freesPudTables: removes && since('3.9'),
    syncClears: removes && since('3.19'),
    unmapFreesPud: removes && since('3.14'),
    efiPgd: since('3.14'),
    vmallocFault: is64 ? lazy : !eager,
    syncsStackAtSwitch: vmapStack && is64 && lazy,
    syncsKernelMappings: eager || (since('5.8') && !is64) || since('6.18'),
    since420: since('4.20'),
  };
}
