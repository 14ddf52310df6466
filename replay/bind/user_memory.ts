// Operations on the user half of an address space. The kernel model has no user half yet: each is charged the cost of
// entering the kernel and a base cost, and every run that has any says so in `warnings`.

import {KIND, KIND_BY_CODE} from '../../formats/kinds.ts';
import type {Task} from '../../kernel/task.ts';
import type {BindingContext, Outcome, QuickBindingTable} from './binding.ts';

function fault({kernel}: BindingContext, t: Task): Outcome {
  kernel.checks.warn(FAULT_WARNING);
  const {costs, machine} = kernel;
  const ticks = machine.topology.pageFaultEntryTicks + costs.minorFaultTicks;
  t.cpu.charge(ticks, kernel.fn('handle_mm_fault'));
  return 'done';
}
const FAULT_WARNING = 'access: the user half of mm is not modelled, only a base cost is charged';

function systemCall({kernel, events}: BindingContext, t: Task, i: number): Outcome {
  const name = KIND_BY_CODE[events.kind[i]]?.name ?? '';
  kernel.checks.warn(`${name}: the user half of mm is not modelled, only a base cost is charged`);
  const ticks = kernel.machine.topology.syscallEntryTicks + kernel.costs.mmSyscallTicks;
  t.cpu.charge(ticks, kernel.fn(`sys_${name}`));
  return 'done';
}

const SYSTEM_CALLS = [
  KIND.mmap,
  KIND.munmap,
  KIND.mprotect,
  KIND.mremap,
  KIND.madvise,
  KIND.brk,
  KIND.mlock,
  KIND.munlock,
  KIND.remap_file_pages,
];

export const USER_MEMORY_BINDINGS: QuickBindingTable = [
  [KIND.access, fault],
  [KIND.touch, fault],
  ...SYSTEM_CALLS.map((kind) => [kind, systemCall] as const),
];
