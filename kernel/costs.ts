// Base costs: how long the straight-line parts of kernel functions take on a quiet CPU with warm
// caches. Whatever depends on other CPUs (lock words, shared lines, shootdowns, walks over lists)
// is not here: it is computed where it happens. Nor is how often a part is done: that follows from
// the objects (fs/file.ts, cred.ts, exec_image.ts, ...). So these are costs of one object, call,
// file, string, component or KiB.
//
// Fixed from outside: lmbench fork+exit on Linux 6.14, 178.2 us, and fork+execve, 549.4 us
// (4.95 GHz desktop part). The user half of an mm (VMAs, page tables, faults) has its
// own table, mm/costs_mm.ts; of the 178 us it is the work for a process with 40 VMAs and 725 mapped
// pages (fork_testing.ts), an assumption.
//
// "measured": on a 2-vCPU EPYC guest (Linux 6.18.44) by C loops of vfork, exec and exit that differ
// in one thing (docs/processes.md has the loops and the numbers), divided by that machine's
// forkWork, 1.25. "sampled": share of samples in the same loops (perf record -e cpu-clock at 10
// kHz), scaled to their time without perf. The rest are assumptions. These do not scale with ghz: a
// machine file of a slower machine states its latencies, not its instruction rate.

import {nsToTicks as ns} from '../machine/time.ts';

/** Base costs in ticks. */
export const COSTS = {
  // --- fork: what copy_process does besides the mm, in its order
  /** Taking a stack from, or giving it to, the two per-CPU slots: cmpxchg on a local line. */
  cachedStackTicks: ns(15),
  /** Stack from the page allocator, order 2 (before VMAP_STACK). */
  allocThreadStackTicks: ns(350),
  freeThreadStackTicks: ns(220),
  /** Charging one page of a kernel stack to its cgroup, or giving it back. Sampled. */
  stackPageAccountTicks: ns(75),
  /** One scheduling entity set up: its fields and its timer. Sampled (sched_fork). */
  schedEntityTicks: ns(50),
  /** Saving or loading the registers of FPU and vector units. */
  fpuSwapTicks: ns(110),
  /** Linking a task to a struct pid, or unlinking it, under tasklist_lock. */
  pidLinkTicks: ns(45),
  /** One node of an idr on the way to a number, under pidmap_lock. Sampled (alloc_pid). */
  idrLevelTicks: ns(35),
  /** Hashing a struct pid, under pidmap_lock (to 4.14). */
  pidHashTicks: ns(60),
  /** Linking a task to its css_set, or unlinking it, under css_set_lock. Sampled. */
  cssSetLinkTicks: ns(30),

  // --- objects, bytes and calls: what the parts above and exec and exit are made of
  /** One object from, or back to, the slab of this CPU, its cgroup's charge included. Sampled. */
  slabAllocTicks: ns(150),
  slabFreeTicks: ns(90),
  /**
   * What freeing after a grace period adds: call_rcu, callback, an object out of cache. Sampled.
   */
  rcuFreeTicks: ns(160),
  /** Copying and clearing a KiB that is in the cache. */
  copyKibTicks: ns(48),
  clearKibTicks: ns(26),
  /** A call that finds nothing to do (life_hooks.ts), and one of a security module. Sampled. */
  hookTicks: ns(32),
  lsmHookTicks: ns(10),
  /** A per-CPU count: a mount's, a percpu_rwsem's. */
  percpuRefTicks: ns(5),
  /** One word put to user space. */
  putUserTicks: ns(4),
  /** One counter read and added to another. */
  counterTicks: ns(3),

  // --- files
  /**
   * A table of files set up or torn down: slots and bitmaps, its lock, its RCU head. Measured:
   * CLONE_FILES saves 2.0 us with three files open.
   */
  fileTableTicks: ns(300),
  /** One file copied by dup_fd, or closed by exit, without its count. Measured: 48 ns for both. */
  dupFileTicks: ns(10),
  closeFileTicks: ns(26),
  /** What exec adds for a file that it closes: its bit, its number. Measured: 26 ns. */
  closeOnExecTicks: ns(20),
  /** Looking at 64 bits of close_on_exec. */
  scanWordTicks: ns(2),
  /** One component of a path that is in the dentry cache. Measured: 50 ns. */
  pathComponentTicks: ns(40),
  /** struct file made and a regular file opened. Measured with fputLast: open and close 1.8 us. */
  openFileTicks: ns(800),
  /** __fput of a regular file, after the last reference. */
  fputLastTicks: ns(450),

  // --- mm
  initNewContextTicks: ns(60),
  /** pcpu_alloc under pcpu_lock: slot lists and bitmap of a chunk. */
  pcpuAllocTicks: ns(180),
  pcpuFreeTicks: ns(150),
  /** Clearing one counter of one CPU when its line is in the cache of this CPU: one store. */
  pcpuClearHitTicks: ns(1),
  /** Linking or unlinking a percpu_counter on the global list, under percpu_counters_lock. */
  percpuCounterListTicks: ns(20),
  /** Summing one counter of one CPU at destruction (check_mm). */
  percpuCounterSumTicks: ns(2),

  // --- exec
  /** One string of argv or envp: pointer fetched, length taken twice. Measured: 189 ns. */
  argStringTicks: ns(140),
  /** A KiB of strings measured, copied and measured again; their pages are in mm/exec_mmap.ts. */
  userStringKibTicks: ns(150),
  /** kernel_read of a few bytes in the page cache, without the folio's count. Sampled. */
  kernelReadTicks: ns(230),
  /** Looking for file capabilities: an extended attribute of the inode. Sampled. */
  xattrTicks: ns(300),
  /** One ELF program header. */
  elfHeaderTicks: ns(15),
  /** One signal action set back. */
  signalActionTicks: ns(1),
  /** A random number from this CPU's batch. */
  randomTicks: ns(40),

  // --- exit and wait
  /** One VMA looked at by acct_collect. */
  nextVmaTicks: ns(8),
  /** Sending SIGCHLD to the parent. */
  sendSignalTicks: ns(150),
  /** One child given to another parent, under tasklist_lock. */
  reparentChildTicks: ns(40),
  waitScanTicks: ns(60),
  /** 16 bytes hashed into the input pool, under its lock. Sampled. */
  mixRandomTicks: ns(120),
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
