// Bindings of swap areas and of memory cgroup limits.
//
// An area is known by the path that the trace gives it. A recording does not say how large an area
// is, and often not that there was one: swapon without a size gets DEFAULT_PAGES, and swapoff of a
// path that nobody swapped on takes the only area there is. memcg_limit puts the calling process
// into a cgroup of its own (or changes the limit of the one it has); children that it forks
// afterwards are in it, too. 0 bytes, or 2^63 and more, is no limit.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {install_memcg, sys_swapoff, sys_swapon} from '../../kernel/mm/swapfile.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {type BindingContext, type BindingTable, type Outcome, PAGE_BYTES} from './binding.ts';

/** 1 GiB. */
const DEFAULT_PAGES = 2 ** 18;

function pathOf({events, strings}: BindingContext, i: number): string {
  return `swap ${strings[argNumber(events, i, 0)] ?? ''}`;
}

function* swapon(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, names} = context;
  let pages = argNumber(events, i, 1);
  if (pages === 0) {
    kernel.checks.warn('swapon without a size: the area is taken to be 1 GiB');
    pages = DEFAULT_PAGES;
  }
  const type = yield* sys_swapon(kernel, t, pages);
  if (type < 0) return 'failed';
  names.set(pathOf(context, i), type);
  return 'done';
}

function* swapoff(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, names} = context;
  const type = names.get(pathOf(context, i)) ?? onlyArea(context);
  if (type === undefined) return 'skipped';
  const result = yield* sys_swapoff(kernel, t, type);
  if (result === 0) names.delete(pathOf(context, i));
  return result < 0 ? 'failed' : 'done';
}

/** The area in use when there is just one. */
function onlyArea({kernel}: BindingContext): number | undefined {
  const areas = kernel.mm.swap.areas.byType.filter((area) => area !== null);
  return areas.length === 1 ? areas[0].type : undefined;
}

function* memcg_limit(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  if (t.mm === null) return 'skipped';
  const bytes = argNumber(events, i, 0);
  const max = bytes === 0 || bytes >= 2 ** 63 ? Infinity : Math.floor(bytes / PAGE_BYTES);
  if (t.cpu.settle()) yield;
  const {mm} = kernel;
  install_memcg(mm);
  const user = mm.userOf(t.mm);
  if (user.memcg === 0) user.memcg = mm.swap.memcgs.create().id;
  mm.swap.memcgs.of(user.memcg).max = max;
  return 'done';
}

export const SWAP_BINDINGS: BindingTable = [
  [KIND.swapon, swapon],
  [KIND.swapoff, swapoff],
  [KIND.memcg_limit, memcg_limit],
];
