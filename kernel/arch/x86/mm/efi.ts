// arch/x86/platform/efi and realmode, as far as PGDs go: special PGDs that belong to no process and
// are on no list.
//
// EFI runtime services run on a PGD of their own (3.14 on; up to 4.5 it is the trampoline's). No
// walk finds it: neither pgd_list nor the task list has it (H. Peter Anvin in the thread of the
// lockless series). It is kept usable by efi_sync_low_kernel_mappings, which copies all kernel
// entries from init_mm before each use. An entry that becomes new between that copy and the end of
// the use is missing, whatever the design; one that was removed dangles until the next copy.

import type {Code} from '../../../../machine/process.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';
import {kernel_map_pages_in_pgd, unmap_pgd_range} from './pageattr.ts';
import type {KernelPgd} from './pgd_pool.ts';

/**
 * The EFI (or trampoline) PGD, made on first use. Null for kernels that run EFI on swapper_pg_dir.
 */
function efiPgd(kernel: Kernel): KernelPgd | null {
  const {pageTables: tables} = kernel;
  if (!tables.features.efiPgd || !tables.layout.is64) {
    kernel.checks.warn(
      'EFI page tables are modelled on 64-bit kernels since 3.14: operation skipped',
    );
    return null;
  }
  return tables.pool.special('efi_pgd');
}

/**
 * efi_sync_low_kernel_mappings: the kernel half of init_mm's PGD, entry by entry, absent ones
 * included.
 */
export function* efi_sync_low_kernel_mappings(kernel: Kernel, t: Task, pgd: KernelPgd): Code {
  const {pageTables: tables} = kernel;
  const fn = kernel.fn('efi_sync_low_kernel_mappings');
  if (t.cpu.settle()) yield;
  for (const index of tables.populated) {
    const ref = tables.reference(t.cpu, index);
    const own = tables.entry(t.cpu, pgd, index);
    if (ref === own) continue;
    if (tables.tables.isDangling(own)) kernel.checks.count('special_pgd_dangling');
    tables.set_pgd(t.cpu, pgd, index, ref);
    kernel.checks.count('special_pgd_synced');
  }
  t.cpu.stall(kernel.machine.lines.touch(pgd.entryLine, t.cpu), fn);
  t.cpu.charge(tables.populated.length * kernel.costs.walkStepTicks, fn);
}

/**
 * Maps a region for the runtime services and calls one: sync, map, use. `start` is a kernel virtual
 * page, or a page frame for the 1:1 mapping: in 4.1 that one goes into the direct map's own tables,
 * as entry 0 of the trampoline's PGD is a copy of it.
 */
export function* efi_map_region(kernel: Kernel, t: Task, start: number, pages: number): Code {
  const pgd = efiPgd(kernel);
  if (pgd === null) return;
  const vpn = kernel.pageTables.directMapVpn(start);
  yield* efi_sync_low_kernel_mappings(kernel, t, pgd);
  yield* kernel_map_pages_in_pgd(kernel, t, pgd, vpn, pages);
  yield* use(kernel, t, pgd);
}

/** Unmaps a region: sync, unmap, use. */
export function* efi_unmap_region(kernel: Kernel, t: Task, start: number, pages: number): Code {
  const pgd = efiPgd(kernel);
  if (pgd === null) return;
  const vpn = kernel.pageTables.directMapVpn(start);
  yield* efi_sync_low_kernel_mappings(kernel, t, pgd);
  yield* unmap_pgd_range(kernel, t, pgd, vpn, pages);
  yield* use(kernel, t, pgd);
}

/** The service runs on the special PGD: whatever the kernel half lacks or has wrong shows now. */
function* use(kernel: Kernel, t: Task, pgd: KernelPgd): Code {
  const {pageTables: tables} = kernel;
  if (t.cpu.settle()) yield;
  for (const index of tables.populated) {
    const ref = tables.reference(t.cpu, index);
    const own = tables.entry(t.cpu, pgd, index);
    if (tables.tables.isDangling(own)) {
      kernel.checks.count('pgd_use_after_free');
      kernel.checks.finding(`use-after-free: EFI code runs with entry ${index} freed`);
    } else if (ref !== 0 && own === 0) {
      kernel.checks.count('special_pgd_missed');
      kernel.checks.finding(
        `${pgd.special ?? 'a special PGD'} lacks kernel entry ${index} while in use`,
      );
    }
  }
}
