// All bindings in two tables, by kind code: those that may wait, and those that are plain
// functions.

import {KIND_LIMIT} from '../../formats/kinds.ts';
import type {Binding, QuickBinding} from './binding.ts';
import {CONFORMANCE_BINDINGS, QUICK_CONFORMANCE_BINDINGS} from './conformance.ts';
import {IO_BINDINGS, QUICK_IO_BINDINGS} from './io.ts';
import {KERNEL_MEMORY_BINDINGS} from './kernel_memory.ts';
import {KSM_BINDINGS} from './ksm.ts';
import {MEMORY_PRESSURE_BINDINGS} from './memory_pressure.ts';
import {NUMA_BINDINGS} from './numa.ts';
import {SWAP_BINDINGS} from './swap.ts';
import {SYNTHETIC_BINDINGS} from './synthetic.ts';
import {SYSFS_BINDINGS} from './sysfs.ts';
import {TASK_BINDINGS} from './tasks.ts';
import {USERFAULTFD_BINDINGS} from './userfaultfd.ts';
import {QUICK_USER_MEMORY_BINDINGS, USER_MEMORY_BINDINGS} from './user_memory.ts';

function byKind<T>(...groups: readonly (readonly (readonly [number, T])[])[]): (T | undefined)[] {
  const table: (T | undefined)[] = new Array(KIND_LIMIT).fill(undefined);
  for (const group of groups) for (const [kind, binding] of group) table[kind] = binding;
  return table;
}

/** The binding of each kind code; undefined where an operation is skipped. */
export const BINDINGS: readonly (Binding | undefined)[] = byKind(
  TASK_BINDINGS,
  KERNEL_MEMORY_BINDINGS,
  IO_BINDINGS,
  NUMA_BINDINGS,
  MEMORY_PRESSURE_BINDINGS,
  SWAP_BINDINGS,
  KSM_BINDINGS,
  SYSFS_BINDINGS,
  SYNTHETIC_BINDINGS,
  USER_MEMORY_BINDINGS,
  CONFORMANCE_BINDINGS,
  USERFAULTFD_BINDINGS,
);

/** Plain bindings, looked at first. */
export const QUICK_BINDINGS: readonly (QuickBinding | undefined)[] = byKind(
  QUICK_USER_MEMORY_BINDINGS,
  QUICK_IO_BINDINGS,
  QUICK_CONFORMANCE_BINDINGS,
);
