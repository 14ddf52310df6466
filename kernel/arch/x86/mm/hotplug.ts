// Memory hotplug, as far as kernel page tables go: add_memory and remove_memory of
// mm/memory_hotplug.c with the x86 parts below them [4.1]. Both run under mem_hotplug.lock, so an
// add and a remove never overlap.
//
// Order of an add: direct map (init_memory_mapping), then vmemmap for the new sections. Of a
// remove: vmemmap first, then the direct map. A BUG on the way lets go of the lock (pgd/base.ts).
// Offlining the pages, sysfs and the zone lists are not modelled. 64 bits only.

import type {Code} from '../../../../machine/process.ts';
import {nsToTicks} from '../../../../machine/time.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';
import {
  kernel_physical_mapping_init,
  PAGES_PER_VMEMMAP_PAGE,
  remove_pagetable,
  vmemmapVpn,
  vmemmap_populate,
} from './init_64.ts';

/** __init_single_page: one struct page initialised. Assumption. */
const INIT_PAGE_TICKS = nsToTicks(4);

function isModelled(kernel: Kernel): boolean {
  if (kernel.pageTables.layout.is64) return true;
  kernel.checks.warn('memory hotplug is modelled on 64-bit kernels only: operation skipped');
  return false;
}

/**
 * Adds `pages` pages of memory on `node`. `start` is a page frame number, or the kernel virtual
 * page of the direct map where it goes.
 */
export function* add_memory(
  kernel: Kernel,
  t: Task,
  start: number,
  pages: number,
  node: number,
): Code {
  if (!isModelled(kernel)) return;
  const fn = kernel.fn('add_memory');
  const startVpn = kernel.pageTables.directMapVpn(start);
  const pfn = startVpn - kernel.pageTables.layout.directMap;
  const lock = kernel.pageTables.mem_hotplug;
  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
  try {
    yield* kernel_physical_mapping_init(kernel, t, startVpn, pages, node);
    const structPages = Math.ceil(pages / PAGES_PER_VMEMMAP_PAGE);
    yield* vmemmap_populate(kernel, t, vmemmapVpn(kernel, pfn), structPages, node);
    t.cpu.charge(pages * INIT_PAGE_TICKS, fn);
  } finally {
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }
  kernel.checks.count('memory_added_pages', pages);
}

/**
 * Removes memory that add_memory or boot put there. Nothing happens before 3.9, which had no
 * remove_pagetable.
 */
export function* remove_memory(
  kernel: Kernel,
  t: Task,
  start: number,
  pages: number,
  _node: number,
): Code {
  if (!isModelled(kernel)) return;
  const {features, layout, mem_hotplug: lock} = kernel.pageTables;
  if (!features.hasRemovePagetable) return;
  const fn = kernel.fn('remove_memory');
  const startVpn = kernel.pageTables.directMapVpn(start);
  const pfn = startVpn - layout.directMap;
  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
  const structPages = Math.ceil(pages / PAGES_PER_VMEMMAP_PAGE);
  try {
    yield* remove_pagetable(kernel, t, vmemmapVpn(kernel, pfn), structPages);
    yield* remove_pagetable(kernel, t, startVpn, pages);
  } finally {
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }
  kernel.checks.count('memory_removed_pages', pages);
}
