// Base costs of userfaultfd in ticks, and the profile numbers of its functions. Pages that are
// copied or cleared, wake-ups and context switches are computed; what is here is bookkeeping.

import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';

/** Base costs in ticks. */
export const COSTS_UFFD = {
  /** userfaultfd(2): context, anon inode, struct file. Assumption. */
  createTicks: ns(900),
  /** handle_userfault apart from queueing and sleeping: message, look at the page table. Assumption. */
  handleTicks: ns(180),
  /** read(2) of one message: refile, copy_to_user. Assumption. */
  readTicks: ns(160),
  /** An ioctl: descriptor, copy_from_user of its structure, checks of the range. Assumption. */
  ioctlTicks: ns(110),
  /** One page installed, without its content: PTE lock, rmap, counter are apart. Assumption. */
  fillTicks: ns(120),
  /** One page of UFFDIO_MOVE: folio lock, anon_vma lock. Assumption. */
  movePageTicks: ns(220),
  /** A walk over one waiter (__wake_userfault). Assumption. */
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
