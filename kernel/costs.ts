// Base costs: how long the straight-line parts of kernel functions take on a quiet CPU with warm caches. Whatever depends
// on other CPUs (lock words, shared lines, shootdowns, walks over lists) is not here: it is computed where it happens.
//
// One number is fixed from outside: lmbench fork+exit on Linux 6.14, 178.2 us, and fork+execve, 549.4 us (hardware.md;
// 4.95 GHz desktop part). The split of that time over functions is an assumption, made from the number of bytes and
// objects each function touches. The user half of an mm (VMAs, page tables, faults) has its own table, mm/costs_mm.ts; of the
// 178 us it is the work for a process with 40 VMAs and 530 mapped pages (fork_testing.ts), also an assumption.
// These do not scale with ghz: a machine file of a slower machine states its latencies, not its instruction rate.

import {nsToTicks as ns} from '../machine/time.ts';

/** Base costs in ticks. */
export const COSTS = {
  // --- fork: what copy_process does besides the mm, in its order. Assumptions unless said otherwise.
  /** Slab allocation of a task_struct and copy of its 9 KiB (x86-64, FPU state included). */
  dupTaskStructTicks: ns(950),
  /** memset of a 16 KiB stack, from the per-CPU cache or fresh: 32 bytes a cycle and cold lines. */
  clearThreadStackTicks: ns(420),
  /** Taking a stack from, or giving it to, the two per-CPU slots: cmpxchg on a local line. */
  cachedStackTicks: ns(15),
  /** Stack from the page allocator, order 2 (before VMAP_STACK). */
  allocThreadStackTicks: ns(350),
  freeThreadStackTicks: ns(220),
  copyCredsTicks: ns(300),
  schedForkTicks: ns(450),
  /** perf, audit, semaphores, security hooks. */
  copyHooksTicks: ns(2_900),
  /** dup_fd of about ten files, each with a reference count that another task may hold. */
  copyFilesTicks: ns(2_300),
  copyFsTicks: ns(250),
  copySighandTicks: ns(450),
  copySignalTicks: ns(900),
  copyNamespacesTicks: ns(120),
  copyThreadTicks: ns(450),
  /** alloc_pid without pidmap_lock: struct pid, idr nodes. */
  allocPidTicks: ns(350),
  /** idr_alloc_cyclic under pidmap_lock. */
  pidmapTicks: ns(90),
  freePidTicks: ns(200),
  cgroupForkTicks: ns(700),
  /** Attaching pids and counting under tasklist_lock. */
  tasklistAddTicks: ns(180),
  procForkConnectorTicks: ns(60),
  /** Child's way from the context switch to user space. */
  retFromForkTicks: ns(500),

  // --- mm
  /** Slab allocation of an mm_struct and memcpy of its 1.2 KiB. */
  allocateMmTicks: ns(350),
  /** mm_init without percpu counters and PGD. */
  mmInitTicks: ns(250),
  initNewContextTicks: ns(60),
  freeMmTicks: ns(180),
  /** pcpu_alloc under pcpu_lock: slot lists and bitmap of a chunk. */
  pcpuAllocTicks: ns(180),
  pcpuFreeTicks: ns(150),
  /** Clearing one counter of one CPU when its line is in the cache of this CPU: one store. */
  pcpuClearHitTicks: ns(1),
  /** Linking or unlinking a percpu_counter on the global list, under percpu_counters_lock. */
  percpuCounterListTicks: ns(20),
  /** Summing one counter of one CPU at destruction (check_mm). */
  percpuCounterSumTicks: ns(2),
  /** dup_mmap and exit_mmap without VMAs: the tree's root, uprobes, ksm, khugepaged, accounting. */
  dupMmapTicks: ns(600),
  exitMmapTicks: ns(400),
  mmReleaseTicks: ns(120),

  // --- exec
  /** Opening the file, bprm, credentials, binary format: kernel half. */
  execBaseTicks: ns(48_000),
  /** load_elf_binary without mappings and faults: headers read, auxiliary vector. */
  loadElfTicks: ns(12_000),
  beginNewExecTicks: ns(2_500),

  // --- exit and wait
  exitSignalsTicks: ns(120),
  exitFilesTicks: ns(2_600),
  exitFsTicks: ns(250),
  exitHooksTicks: ns(4_200),
  /** exit_notify under tasklist_lock, one child to reparent extra. */
  exitNotifyTicks: ns(350),
  reparentChildTicks: ns(40),
  cgroupExitTicks: ns(400),
  waitScanTicks: ns(60),
  /** wait_task_zombie: times, rusage, copying to user space. */
  waitZombieTicks: ns(900),
  /** release_task without the locked part. */
  releaseTaskTicks: ns(900),
  /** __exit_signal, __unhash_process under tasklist_lock. */
  unhashProcessTicks: ns(380),
  /** Sending a fatal signal to one thread under siglock. */
  zapThreadTicks: ns(90),

  // --- walks
  /** One step of for_each_process when the lines are here. */
  walkStepTicks: ns(2),

  // --- vmalloc
  /** Slab allocation of vm_struct and vmap_area. */
  vmapAreaAllocTicks: ns(180),
  /** One node visited in the tree of areas, under vmap_area_lock. */
  vmapTreeStepTicks: ns(6),
  /** Page from the per-CPU list of the page allocator. */
  allocPageTicks: ns(90),
  freePageTicks: ns(60),
  /** Setting or clearing one kernel PTE. */
  kernelPteTicks: ns(8),
  /** get_zeroed_page for a page table: clearing 4 KiB. */
  zeroPageTicks: ns(110),
  /** Handling one lazily freed area in the purge. */
  purgeAreaTicks: ns(60),
  /** vmalloc_fault after the exception entry: five levels looked at. */
  vmallocFaultTicks: ns(150),
} as const;

/** Costs on a machine whose kernel code takes `factor` times the base cost, in whole ticks. */
export function scaledCosts<T extends Readonly<Record<string, number>>>(
  costs: T,
  factor: number,
): T {
  if (factor === 1) return costs;
  const scaled = Object.entries(costs).map(([name, ticks]) => [name, Math.round(ticks * factor)]);
  return Object.fromEntries(scaled) as T;
}

export type Costs = Readonly<Record<keyof typeof COSTS, number>>;
