// Operations on the user half of an address space. The kernel model has no user half yet: each is charged the cost of
// entering the kernel and a base cost, and every run that has any says so in `warnings`.

import {KIND, KIND_BY_CODE} from '../../formats/kinds.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/engine.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {BindingContext, BindingTable, Outcome} from './binding.ts';

function* baseCost({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const kind = events.kind[i];
  const name = KIND_BY_CODE[kind]?.name ?? '';
  kernel.checks.warn(`${name}: the user half of mm is not modelled, only a base cost is charged`);
  const fault = kind === KIND.access || kind === KIND.touch;
  const costNs = fault ? kernel.costs.pageFaultNs : kernel.costs.mmSyscallNs;
  t.cpu.charge(nsToTicks(costNs), kernel.fn(fault ? 'handle_mm_fault' : `sys_${name}`));
  if (t.cpu.settle()) yield;
  return 'done';
}

const KINDS_WITHOUT_MODEL = [
  KIND.mmap,
  KIND.munmap,
  KIND.mprotect,
  KIND.mremap,
  KIND.madvise,
  KIND.brk,
  KIND.mlock,
  KIND.munlock,
  KIND.remap_file_pages,
  KIND.access,
  KIND.touch,
];

export const USER_MEMORY_BINDINGS: BindingTable = KINDS_WITHOUT_MODEL.map((kind) => [kind, baseCost]);
