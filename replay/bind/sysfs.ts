// Binding of a write to a file of /sys: /sys/kernel/mm/ksm, /sys/kernel/mm/transparent_hugepage,
// /sys/kernel/mm/hugepages. The path may be given with or without /sys/kernel/mm. khugepaged is
// there from the first write to its directory on: it sleeps 10 s between two scans by default, so
// replays that do not set it up do without.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {thp_store} from '../../kernel/mm/huge_memory_sysfs.ts';
import {hugetlb_store, isHugetlbPath} from '../../kernel/mm/hugetlb_sysfs.ts';
import {ksm_store} from '../../kernel/mm/ksm_sysfs.ts';
import {isNumaPath, numa_store} from '../../kernel/sched/numa_sysctl.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {type BindingContext, type BindingTable, type Outcome, outcomeOf} from './binding.ts';

const PREFIX = '/sys/kernel/mm/';

function* sysfs_write(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, strings} = context;
  const path = (strings[argNumber(events, i, 0)] ?? '').replace(PREFIX, '');
  const value = (strings[argNumber(events, i, 1)] ?? '').trim();
  const [directory, ...rest] = path.split('/');
  const file = rest.join('/');
  const {ksm, huge} = kernel.mm;
  const full = strings[argNumber(events, i, 0)] ?? '';
  if (isHugetlbPath(kernel, full)) return outcomeOf(hugetlb_store(kernel, t, full, value));
  if (isNumaPath(path)) return outcomeOf(numa_store(kernel.mm.numa, path, value));
  if (directory === 'ksm') {
    return ksm === null ? 'failed' : outcomeOf(yield* ksm_store(ksm, t, file, Number(value)));
  }
  if (directory === 'transparent_hugepage') {
    return huge === null ? 'failed' : outcomeOf(thp_store(huge, file, value));
  }
  kernel.checks.warn(`sysfs_write: ${path} is not modelled`);
  return 'skipped';
}

export const SYSFS_BINDINGS: BindingTable = [[KIND.sysfs_write, sysfs_write]];
