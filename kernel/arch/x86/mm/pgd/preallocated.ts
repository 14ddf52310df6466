// preallocated: 5.9 and later on 64 bits. Boot populates every top-level entry of the vmalloc range
// (preallocate_vmalloc_pages), so that vmalloc never needs a synchronisation and vmalloc_fault is
// gone. pgd_list and pgd_lock are still there, taken by every pgd_alloc and pgd_free, and walked
// when the direct map or vmemmap grows. On 32 bits, where nothing is preallocated, vmalloc
// synchronises eagerly (arch_sync_kernel_mappings) and vmalloc_fault was put back (4819e15f740e),
// because another CPU may use a mapping before the walk has come by.

import type {Kernel} from '../../../../kernel.ts';
import {PgdListDesign} from './pgd_list.ts';

/** pgd_list with the vmalloc range populated at boot; the populating is in KernelPageTables. */
export class Preallocated extends PgdListDesign {
  constructor(kernel: Kernel) {
    super(kernel, 'preallocated');
  }
}
