// arch/x86/xen/mmu.c of a PV guest [4.1], as far as PGDs go. A pinned page table is read-only for
// the guest: it is written through the hypervisor (set_pgd), a plain store faults. An mm is pinned
// by dup_mmap in fork and by activate_mm in exec. Before a suspend every PGD is pinned, because
// only pinned page tables are translated to the new machine's frames.
//
// xen_mm_pin_all runs under stop_machine in Linux. Here the other CPUs go on; PGDs made after it
// began are not judged. What it must not miss is a PGD of a fork that is under way: that one is on
// pgd_list, but on no task yet.

import type {Code} from '../../../../machine/process.ts';
import {nsToTicks} from '../../../../machine/time.ts';
import type {Cpu} from '../../../../machine/cpu.ts';
import {KernelBug} from '../../../checks.ts';
import type {Kernel} from '../../../kernel.ts';
import type {MmStruct} from '../../../mm_types.ts';
import type {PgdVisitor} from '../../../pgd_design.ts';
import type {Task} from '../../../task.ts';
import type {KernelPgd} from '../mm/pgd_pool.ts';

/** One MMUEXT_PIN hypercall with the remapping of a small process's tables. Assumption. */
const PIN_TICKS = nsToTicks(2_000);

/**
 * xen_pgd_pin: first use of an mm (dup_mmap, activate_mm). Nothing on bare metal. Plain: charges
 * only.
 */
export function xen_pgd_pin(kernel: Kernel, t: Task, mm: MmStruct): void {
  const pgd = mm.pgd as KernelPgd | null;
  if (!kernel.pageTables.layout.xen || pgd === null || pgd.pinned) return;
  pgd.pinned = true;
  t.cpu.charge(PIN_TICKS, kernel.fn('xen_pgd_pin'));
}

/**
 * A plain store to a pinned PGD: the guest takes a page fault it cannot handle. True: the store did
 * not happen.
 */
export function reportRawStore(kernel: Kernel, pgd: KernelPgd, index: number): boolean {
  const mm = pgd.mm?.id ?? 0;
  kernel.checks.count('xen_raw_stores');
  throw died(
    kernel,
    `BUG: unable to handle kernel paging request: plain store to entry ${index} of the pinned PGD of mm ${mm}`,
  );
}

function died(kernel: Kernel, text: string): KernelBug {
  kernel.checks.finding(text);
  return new KernelBug(text);
}

/**
 * Before pgd_alloc returns, or once its mm is torn down, a PGD holds no frames that must survive a
 * move.
 */
function isInUse(pgd: KernelPgd): boolean {
  return pgd.allocated && (pgd.mm?.users ?? 0) > 0;
}

class PinAll implements PgdVisitor {
  readonly locksPageTable = false;
  visit(cpu: Cpu, pgd: KernelPgd): boolean {
    if (pgd.pinned) return true;
    pgd.pinned = true;
    pgd.savePinned = true;
    cpu.pendingTicks += PIN_TICKS;
    return true;
  }
}

class UnpinAll implements PgdVisitor {
  readonly locksPageTable = false;
  visit(cpu: Cpu, pgd: KernelPgd): boolean {
    if (!pgd.savePinned) return true;
    pgd.savePinned = false;
    pgd.pinned = false;
    cpu.pendingTicks += PIN_TICKS;
    return true;
  }
}

/** xen_mm_pin_all, at suspend: afterwards no PGD that was there at the start may be unpinned. */
export function* xen_mm_pin_all(kernel: Kernel, t: Task): Code {
  const {pgd, pageTables, checks} = kernel;
  if (!pageTables.layout.xen) return;
  const fn = kernel.fn('xen_mm_pin_all');
  kernel.rcu.readLock(t);
  if (!pgd.pgd_lock.acquire(t, fn)) yield* pgd.pgd_lock.acquireSlow(t, fn);
  const {newest} = pageTables.pool;
  yield* pgd.walkAll(t, new PinAll(), fn);
  pageTables.pool.forEach((each) => {
    if (each.pinned || each.sequence > newest || !isInUse(each)) return;
    checks.count('xen_unpinned_pgds');
    checks.finding(`xen: the PGD of mm ${each.mm?.id ?? 0} is not pinned at suspend`);
  });
  if (!pgd.pgd_lock.release(t)) yield* pgd.pgd_lock.releaseSlow(t);
  kernel.rcu.readUnlock(t);
}

/** xen_mm_unpin_all, at resume: takes back what xen_mm_pin_all pinned. */
export function* xen_mm_unpin_all(kernel: Kernel, t: Task): Code {
  const {pgd, pageTables} = kernel;
  if (!pageTables.layout.xen) return;
  const fn = kernel.fn('xen_mm_unpin_all');
  kernel.rcu.readLock(t);
  if (!pgd.pgd_lock.acquire(t, fn)) yield* pgd.pgd_lock.acquireSlow(t, fn);
  yield* pgd.walkAll(t, new UnpinAll(), fn);
  if (!pgd.pgd_lock.release(t)) yield* pgd.pgd_lock.releaseSlow(t);
  kernel.rcu.readUnlock(t);
}
