// mm/shmem.c: shmem_evict_inode, for shared anonymous memory when its last mapping is gone: its
// pages leave the cache and are freed, its swap slots are given back.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {PG_dirty} from './page_flags.ts';
import {folio_put} from './page_alloc.ts';

/** Frees the file with all it holds. Nothing maps it. Cost: one step per page. */
export function shmem_evict_inode(k: Kernel, t: Task, mapping: AddressSpace): void {
  const {mm} = k;
  const {files, pages} = mm;
  let index = files.nextIndex(mapping, 0, mapping.sizePages);
  while (index >= 0) {
    const pfn = files.page(mapping, index);
    if (pfn > 0) {
      files.removePage(mapping, index, -1);
      pages.flags[pfn] &= ~PG_dirty;
      t.cpu.charge(mm.costs.truncatePageTicks, mm.fns.shmem_evict_inode);
      folio_put(k, t, pfn);
    } else {
      const swap = files.removeValue(mapping, index);
      if (swap >= 0) mm.hooks.free_swap_and_cache?.(swap, 1);
    }
    index = files.nextIndex(mapping, index + 1, mapping.sizePages);
  }
  mm.shmemSwaplist.delete(mapping);
  files.destroy(mapping);
}
