// The many small calls that fork, exec, exit and release make to other parts of the kernel, and
// that find nothing to do for an ordinary process: audit, taskstats, perf, semaphores, ptrace and
// so on. Each is a call, a test or two and a return; a kernel version has those that it has. What
// they do for a process that uses them (perf counters, a System V semaphore undo list, an
// accounting file) is not modelled. Names and order are those of the functions called; the releases
// are when the call appeared. With nothing said it was there in 2.6.32 already. Source: the
// kernel's history, as far as it was looked up; the release of a minor call may be off by one.

import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';
import {isBefore} from './version.ts';

type Hook = string | readonly [name: string, since: string];

/** What a process passes through. */
export type Stage =
  | 'fork'
  | 'ret_from_fork'
  | 'mm_release'
  | 'exit'
  | 'exit_group'
  | 'release'
  | 'exec'
  | 'mm_init'
  | 'mm_free'
  | 'dup_mmap'
  | 'exit_mmap';

const HOOKS: Readonly<Record<Stage, readonly Hook[]>> = {
  fork: [
    'ftrace_graph_init_task',
    'rt_mutex_init_task',
    'delayacct_tsk_init',
    ['psi_task_init', '4.20'],
    ['rcu_copy_process', '3.12'],
    ['kcov_task_init', '4.6'],
    'acct_clear_integrals',
    'posix_cpu_timers_init',
    ['cgroup_fork', '2.6.39'],
    'mpol_dup',
    ['cpuset_init_fields', '3.4'],
    'perf_event_init_task',
    'audit_alloc',
    ['shm_init_task', '3.18'],
    'copy_semundo',
    'copy_io',
    ['stackleak_task_init', '4.20'],
    ['futex_init_task', '5.5'],
    ['uprobe_copy_process', '3.7'],
    ['sched_core_fork', '5.14'],
    ['sched_mm_cid_fork', '6.3'],
    ['klp_copy_process', '5.17'],
    ['rseq_fork', '4.18'],
    ['io_uring_fork', '6.15'],
    'proc_fork_connector',
    'trace_task_newtask',
    'perf_event_fork',
  ],
  ret_from_fork: [
    ['rseq_sched_in', '4.18'],
    'trace_sched_process_fork',
    ['calculate_sigpending', '4.19'],
    'syscall_trace_leave',
  ],
  mm_release: ['futex_exit_release', ['uprobe_free_utask', '3.5'], 'deactivate_mm', 'clear_tid'],
  exit: [
    ['kcov_task_exit', '4.6'],
    ['coredump_task_exit', '5.17'],
    'ptrace_event',
    ['io_uring_files_cancel', '5.5'],
    ['seccomp_filter_release', '5.19'],
    'acct_update_integrals',
    'audit_free',
    'tty_audit_exit',
    'taskstats_exit',
    'trace_sched_process_exit',
    ['sched_mm_cid_before_execve', '6.3'],
    'exit_sem',
    'exit_shm',
    ['exit_task_work', '3.5'],
    'exit_thread',
    'perf_event_exit_task',
    ['sched_autogroup_exit_task', '4.9'],
    'flush_ptrace_hw_breakpoint',
    ['exit_tasks_rcu_start', '3.18'],
    'proc_exit_connector',
    'mpol_put_task_policy',
    'exit_io_context',
    'splice_free',
    'page_frag_free',
    'exit_rcu',
    ['exit_tasks_rcu_finish', '3.18'],
  ],
  exit_group: ['hrtimer_cancel', 'exit_itimers', 'acct_process', 'disassociate_ctty'],
  release: [
    'ptrace_release_task',
    ['pidfs_exit', '6.15'],
    'proc_flush_pid',
    'posix_cpu_timers_exit',
    'flush_sigqueue',
    'release_thread',
    'perf_event_delayed_put',
    'trace_sched_process_free',
    'delayacct_tsk_free',
    ['io_uring_free', '5.5'],
    ['bpf_task_storage_free', '5.11'],
  ],
  exec: [
    'is_rlimit_overlimit',
    'check_unsafe_exec',
    ['sched_mm_cid_before_execve', '6.3'],
    'audit_bprm',
    'trace_sched_process_exec',
    'proc_exec_connector',
    'ptrace_event',
    ['io_uring_task_cancel', '5.5'],
    'exit_itimers',
    ['exec_task_namespaces', '5.19'],
    'arch_pick_mmap_layout',
    'arch_setup_new_exec',
    'perf_event_exec',
    ['rseq_execve', '4.18'],
    'acct_update_integrals',
    'uprobe_clear_state',
    'membarrier_exec_mmap',
    'task_numa_free',
  ],
  mm_init: [
    'mm_init_cpumask',
    'mm_init_aio',
    'mm_init_owner',
    ['mm_pasid_init', '5.18'],
    'mmu_notifier_subscriptions_init',
    ['init_tlb_flush_pending', '3.13'],
    ['mm_init_uprobes_state', '3.5'],
    ['hugetlb_count_init', '4.4'],
    ['lru_gen_init_mm', '6.1'],
    ['futex_mm_init', '6.16'],
  ],
  mm_free: [
    'destroy_context',
    'mmu_notifier_subscriptions_destroy',
    'put_user_ns',
    ['mm_pasid_drop', '5.18'],
  ],
  dup_mmap: [
    ['uprobe_start_dup_mmap', '3.7'],
    'flush_cache_dup_mm',
    ['uprobe_dup_mmap', '3.7'],
    'arch_dup_mmap',
    'ksm_fork',
    ['khugepaged_fork', '2.6.38'],
    'flush_tlb_mm',
    ['dup_userfaultfd_complete', '4.11'],
    ['uprobe_end_dup_mmap', '3.7'],
  ],
  exit_mmap: [
    ['uprobe_clear_state', '3.5'],
    'exit_aio',
    'ksm_exit',
    ['khugepaged_exit', '2.6.38'],
    'mmu_notifier_release',
    'arch_exit_mmap',
    ['mm_put_huge_zero_folio', '3.8'],
    'vm_unacct_memory',
    ['lru_gen_del_mm', '6.1'],
    'module_put',
  ],
};

/**
 * Security modules whose hooks are called one after the other: capability and two more. Assumption.
 */
const SECURITY_MODULES = 3;

/** How many of the calls of `stage` a kernel version makes. */
function hookCount(version: string, stage: Stage): number {
  const has = (hook: Hook): boolean => typeof hook === 'string' || !isBefore(version, hook[1]);
  return HOOKS[stage].filter(has).length;
}

/** Number of calls by stage. */
export type HookCounts = Readonly<Record<Stage, number>>;

/** The calls that kernel `version` makes. */
export function hookCounts(version: string): HookCounts {
  const stages = Object.keys(HOOKS) as Stage[];
  const counts = stages.map((stage) => [stage, hookCount(version, stage)]);
  return Object.fromEntries(counts) as HookCounts;
}

/** All calls of `stage`. */
export function chargeHooks(k: Kernel, t: Task, stage: Stage, fn: number): void {
  t.cpu.charge(k.hooks[stage] * k.costs.hookTicks, fn);
}

/**
 * `calls` security hooks (security_task_alloc, security_bprm_check, ...), each a call to every
 * module.
 */
export function chargeLsm(k: Kernel, t: Task, calls: number, fn: number): void {
  t.cpu.charge(calls * SECURITY_MODULES * k.costs.lsmHookTicks, fn);
}
