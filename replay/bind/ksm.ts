// Bindings of KSM's switch and of prctl(PR_SET_MEMORY_MERGE). What ksmd then does follows from what the pages hold
// (contents.ts); its pace is set through sysfs (sysfs.ts).

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {ksm_disable_merge_any, ksm_enable_merge_any} from '../../kernel/mm/ksm_merge_any.ts';
import {run_store} from '../../kernel/mm/ksm_sysfs.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/engine.ts';
import {type BindingContext, type BindingTable, type Outcome, outcomeOf} from './binding.ts';

function* ksm_run({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const {ksm} = kernel.mm;
  if (ksm === null) return 'failed';
  return outcomeOf(yield* run_store(ksm, t, argNumber(events, i, 0)));
}

/** The caller's mm enters outside of madvise: by prctl, which makes all that it has and will have mergeable. */
function* ksm_enter({kernel}: BindingContext, t: Task): Code<Outcome> {
  const {ksm} = kernel.mm;
  if (ksm === null || t.mm === null) return 'skipped';
  return outcomeOf(yield* ksm_enable_merge_any(ksm, t));
}

function* ksm_exit({kernel}: BindingContext, t: Task): Code<Outcome> {
  const {ksm} = kernel.mm;
  if (ksm === null || t.mm === null) return 'skipped';
  return outcomeOf(yield* ksm_disable_merge_any(ksm, t));
}

export const KSM_BINDINGS: BindingTable = [
  [KIND.ksm_run, ksm_run],
  [KIND.ksm_enter, ksm_enter],
  [KIND.ksm_exit, ksm_exit],
];
