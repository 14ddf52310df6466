// Profile numbers of the functions of fork, exec and exit, looked up once per kernel. Names are those a perf profile shows.

import type {Kernel} from './kernel.ts';

const NAMES = [
  'copy_process',
  'dup_task_struct',
  'alloc_thread_stack_node',
  'free_thread_stack',
  'sched_fork',
  'copy_files',
  'copy_signal',
  'mm_init',
  'dup_mm',
  'dup_mmap',
  'copy_mm',
  'alloc_pid',
  'free_pid',
  'cgroup_fork',
  'ret_from_fork',
  'do_user_addr_fault',
  'wait_for_vfork_done',
  'mmput',
  'mmdrop',
  'exit_mmap',
  'mm_release',
  'exec_mmap',
  'do_execveat_common',
  'load_elf_binary',
  'begin_new_exec',
  'de_thread',
  'do_exit',
  'exit_mm',
  'exit_notify',
  'zap_other_threads',
  'forget_original_parent',
  'do_wait',
  'wait_task_zombie',
  'release_task',
  'syscall_entry',
] as const;

/** Profile ids by function name. */
export type ForkFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Interns every name. */
export function forkFns(kernel: Kernel): ForkFns {
  return Object.fromEntries(NAMES.map((name) => [name, kernel.fn(name)])) as ForkFns;
}
