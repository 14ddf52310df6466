// Operations on the user half of an address space, all of them. Those that the kernel model does not have are charged the
// cost of entering the kernel and a base cost, and every run that has any says so in `warnings`.

import {KIND, KIND_BY_CODE} from '../../formats/kinds.ts';
import type {Task} from '../../kernel/task.ts';
import type {BindingContext, BindingTable, Outcome, QuickBindingTable} from './binding.ts';
import {ACCESS_BINDINGS, QUICK_ACCESS_BINDINGS} from './user_memory_access.ts';
import {MAP_BINDINGS} from './user_memory_map.ts';

function systemCall({kernel, events}: BindingContext, t: Task, i: number): Outcome {
  const name = KIND_BY_CODE[events.kind[i]]?.name ?? '';
  kernel.checks.warn(`${name}: not modelled yet, only a base cost is charged`);
  const ticks = kernel.machine.topology.syscallEntryTicks + kernel.costs.mmSyscallTicks;
  t.cpu.charge(ticks, kernel.fn(`sys_${name}`));
  return 'done';
}

const SYSTEM_CALLS = [
  KIND.mprotect,
  KIND.mremap,
  KIND.madvise,
  KIND.mlock,
  KIND.munlock,
  KIND.remap_file_pages,
];

export const USER_MEMORY_BINDINGS: BindingTable = [...MAP_BINDINGS, ...ACCESS_BINDINGS];

/** Looked at first. */
export const QUICK_USER_MEMORY_BINDINGS: QuickBindingTable = [
  ...QUICK_ACCESS_BINDINGS,
  ...SYSTEM_CALLS.map((kind) => [kind, systemCall] as const),
];
