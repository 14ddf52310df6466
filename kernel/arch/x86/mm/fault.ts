// arch/x86/mm/fault.c, the part about kernel addresses: what happens when kernel code touches one.
//
// The lazy half of the scheme: a PGD need not have an entry of the vmalloc range until somebody
// uses it, because vmalloc_fault copies it then. 64 bits (until 5.8) works on the PGD of
// current->active_mm, 32 bits on the one in CR3, since the fault may come in the middle of a
// context switch. Nothing repairs other ranges: an entry of the direct map that is missing is an
// oops. A fault cannot be taken everywhere: in an NMI it returned with IRET and so let NMIs nest.

import type {Code} from '../../../../machine/process.ts';
import {KernelBug} from '../../../checks.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';
import type {KernelPgd} from './pgd_pool.ts';

/** Where kernel code runs when it touches memory. */
export type AccessContext = 'task' | 'nmi';

/** The PGD that the CPU walks for `t`. */
function currentPgd(kernel: Kernel, t: Task): KernelPgd {
  const {is64} = kernel.pageTables.layout;
  const mm = is64 ? (t.mm ?? t.activeMm) : kernel.tlb.loadedMm(t.cpu);
  return (mm?.pgd ?? kernel.initMm.pgd) as KernelPgd;
}

function address(vpn: number): string {
  return `0x${(BigInt(vpn) << 12n).toString(16)}`;
}

/**
 * Kernel code touches page `vpn`. Returns true when a page fault was taken and repaired, false when
 * none was needed. An access that cannot be repaired is an oops: a finding, and the task dies
 * (KernelBug).
 */
export function* kernel_access(
  kernel: Kernel,
  t: Task,
  vpn: number,
  context: AccessContext = 'task',
): Code<boolean> {
  const tables = kernel.pageTables;
  const {lines} = kernel.machine;
  if (t.cpu.settle()) yield;
  const index = tables.pgd_index(vpn);
  const pgd = currentPgd(kernel, t);
  const entry = tables.entry(t.cpu, pgd, index);
  if (entry !== 0) {
    checkDangling(kernel, t, pgd, entry, vpn);
    return false;
  }
  const fn = kernel.fn('vmalloc_fault');
  t.cpu.stall(lines.touch(pgd.entryLine, t.cpu), fn);
  t.cpu.charge(kernel.machine.topology.pageFaultEntryTicks, fn);
  if (tables.isVmalloc(vpn) && tables.features.vmallocFault) {
    if (yield* vmalloc_fault(kernel, t, vpn, context)) return true;
  }
  return oops(kernel, `BUG: unable to handle kernel paging request at ${address(vpn)}`);
}

/** vmalloc_fault: copies the reference entry. False: the reference has none, the fault is real. */
export function* vmalloc_fault(
  kernel: Kernel,
  t: Task,
  vpn: number,
  context: AccessContext = 'task',
): Code<boolean> {
  const tables = kernel.pageTables;
  const fn = kernel.fn('vmalloc_fault');
  const index = tables.pgd_index(vpn);
  kernel.checks.count('vmalloc_faults');
  if (context === 'nmi') {
    kernel.checks.count('vmalloc_faults_in_nmi');
    kernel.checks.finding(`WARNING: vmalloc_fault at ${address(vpn)} in NMI context`);
  }
  t.cpu.charge(kernel.costs.vmallocFaultTicks, fn);
  if (t.cpu.settle()) yield;
  const pgd = currentPgd(kernel, t);
  const ref = tables.reference(t.cpu, index);
  if (ref === 0) return false;
  const own = tables.entry(t.cpu, pgd, index);
  if (own === 0) tables.set_pgd(t.cpu, pgd, index, ref);
  else if (own !== ref) {
    oops(
      kernel,
      `BUG: vmalloc_fault: entry ${index} of mm ${pgd.mm?.id ?? 0} differs from the reference`,
    );
  }
  checkDangling(kernel, t, pgd, ref, vpn);
  return true;
}

/** Whoever walks through an entry that names a freed page table uses freed memory. */
function checkDangling(kernel: Kernel, t: Task, pgd: KernelPgd, entry: number, vpn: number): void {
  if (!kernel.pageTables.tables.isDangling(entry)) return;
  kernel.checks.count('pgd_use_after_free');
  const mm = pgd.mm?.id ?? 0;
  kernel.checks.finding(
    `use-after-free: ${t.comm}/${t.tid} reaches ${address(vpn)} through a freed page table (mm ${mm})`,
  );
}

function oops(kernel: Kernel, text: string): never {
  kernel.checks.count('kernel_oops');
  kernel.checks.finding(text);
  throw new KernelBug(text);
}
