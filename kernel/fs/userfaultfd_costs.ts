// Base costs of userfaultfd in ticks, and the profile numbers of its functions. Pages that are
// copied or cleared, wake-ups and context switches are computed; what is here is bookkeeping.

import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';

/**
 * Base costs in ticks. Measured on a Linux 6.18 guest of the kind of epyc-2cpu-guest (smallest of
 * twelve runs of a C program that does each 4,096 times), over that machine's kernelWork.
 */
export const COSTS_UFFD = {
  /** userfaultfd(2): context, anon inode, struct file; and close(2). Their sum is measured. */
  createTicks: ns(900),
  closeTicks: ns(286),
  /**
   * handle_userfault apart from queueing and sleeping: message, look at the page table. Assumption.
   */
  handleTicks: ns(100),
  /** read(2) of one message, or of none: 309 ns with the system call. */
  readTicks: ns(52),
  /** An ioctl: descriptor, copy_from_user, checks of the range: 245 ns with the system call. */
  ioctlTicks: ns(30),
  /** Flags of one VMA: REGISTER and UNREGISTER of a mapping are 1,284 ns together. */
  registerVmaTicks: ns(145),
  /** One page installed without its content (UFFDIO_ZEROPAGE: 560 ns, _POISON: 568 ns). */
  fillTicks: ns(110),
  /** A page copied from user memory, beyond allocating and copying it: 1,248 ns in long copies. */
  copyPageTicks: ns(120),
  /** One run of UFFDIO_MOVE, and each page of it (1,054 ns alone, 68 ns in long moves). */
  moveRunTicks: ns(237),
  movePageTicks: ns(21),
  /** A look at one waiter (__wake_userfault). Assumption. */
  wakeWaiterTicks: ns(30),
} as const;

export type CostsUffd = Readonly<Record<keyof typeof COSTS_UFFD, number>>;

const NAMES = [
  '__do_sys_userfaultfd',
  'handle_userfault',
  'userfaultfd_read',
  'userfaultfd_ioctl',
  'userfaultfd_register',
  'userfaultfd_unregister',
  'userfaultfd_release',
  'userfaultfd_event_wait_completion',
  'dup_userfaultfd',
  'mfill_atomic',
  'mfill_atomic_hugetlb',
  'mwriteprotect_range',
  'move_pages',
] as const;

export type UffdFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Costs on this machine and profile numbers, for one kernel. */
export interface UffdWork {
  readonly costs: CostsUffd;
  readonly fns: UffdFns;
}

const byKernel = new WeakMap<Kernel, UffdWork>();

/** The costs and numbers of `k`, made when first needed. */
export function uffdWork(k: Kernel): UffdWork {
  let work = byKernel.get(k);
  if (work === undefined) {
    const costs = scaledCosts(COSTS_UFFD, k.machine.topology.kernelWork);
    const fns = Object.fromEntries(NAMES.map((name) => [name, k.fn(name)])) as UffdFns;
    work = {costs, fns};
    byKernel.set(k, work);
  }
  return work;
}
