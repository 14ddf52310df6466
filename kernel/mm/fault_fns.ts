// Profile numbers of the functions of faults, fork copies, unmapping and the page allocator, looked
// up once per kernel.

import type {Kernel} from '../kernel.ts';

const NAMES = [
  'user_access',
  'asm_exc_page_fault',
  'do_user_addr_fault',
  'lock_vma_under_rcu',
  'handle_mm_fault',
  'do_anonymous_page',
  'do_read_fault',
  'do_cow_fault',
  'do_shared_fault',
  'filemap_map_pages',
  'filemap_fault',
  'do_wp_page',
  'wp_page_copy',
  'wp_page_reuse',
  'clear_page_erms',
  'copy_mc_to_kernel',
  '__anon_vma_prepare',
  'folio_add_lru',
  'folio_batch_move_lru',
  '__alloc_frozen_pages_noprof',
  'rmqueue_bulk',
  'free_unref_folios',
  'free_pcppages_bulk',
  '__pte_alloc',
  'pte_offset_map_lock',
  'mem_cgroup_charge',
  'copy_page_range',
  'copy_pte_range',
  'zap_pte_range',
  'unmap_vmas',
  'free_pgtables',
  'free_pgd_range',
  'tlb_finish_mmu',
  'flush_tlb_mm_range',
  'expand_stack',
  'mm_take_all_locks',
  'mmu_notifier_register',
  'unlink_anon_vmas',
  'unlink_file_vma',
  'do_mmap',
  'vma_merge_new_range',
  'mm_populate',
  'do_vmi_munmap',
  'remove_vma',
  'sys_brk',
  'bprm_mm_init',
  'setup_arg_pages',
  'shmem_evict_inode',
  'do_mprotect_pkey',
  'change_pte_range',
  'do_mremap',
  'move_page_tables',
  'move_ptes',
  'do_madvise',
  'madvise_free_pte_range',
  'madvise_guard_install',
  'do_mlock',
  'mlock_pte_range',
  'remap_file_pages',
  'unmap_mapping_range',
  'truncate_inode_pages_range',
] as const;

/** Profile ids by function name. */
export type MmFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Interns every name. */
export function mmFns(kernel: Kernel): MmFns {
  return Object.fromEntries(NAMES.map((name) => [name, kernel.fn(name)])) as MmFns;
}
