// Operations on the user half of an address space, all of them.

import type {BindingTable, QuickBindingTable} from './binding.ts';
import {ACCESS_BINDINGS, QUICK_ACCESS_BINDINGS} from './user_memory_access.ts';
import {MAP_BINDINGS} from './user_memory_map.ts';
import {PROTECT_BINDINGS} from './user_memory_protect.ts';

export const USER_MEMORY_BINDINGS: BindingTable = [
  ...MAP_BINDINGS,
  ...PROTECT_BINDINGS,
  ...ACCESS_BINDINGS,
];

/** Looked at first. */
export const QUICK_USER_MEMORY_BINDINGS: QuickBindingTable = QUICK_ACCESS_BINDINGS;
