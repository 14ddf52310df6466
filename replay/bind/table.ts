// All bindings in one table, by kind code.

import {KIND_LIMIT} from '../../formats/kinds.ts';
import type {Binding} from './binding.ts';
import {KERNEL_MEMORY_BINDINGS} from './kernel_memory.ts';
import {SYNTHETIC_BINDINGS} from './synthetic.ts';
import {TASK_BINDINGS} from './tasks.ts';
import {USER_MEMORY_BINDINGS} from './user_memory.ts';

/** The binding of each kind code; undefined where an operation is skipped. */
export const BINDINGS: readonly (Binding | undefined)[] = (() => {
  const table: (Binding | undefined)[] = new Array(KIND_LIMIT).fill(undefined);
  const groups = [TASK_BINDINGS, KERNEL_MEMORY_BINDINGS, SYNTHETIC_BINDINGS, USER_MEMORY_BINDINGS];
  for (const group of groups) for (const [kind, binding] of group) table[kind] = binding;
  return table;
})();
