// Bindings of KSM's switch and of prctl(PR_SET_MEMORY_MERGE). What ksmd then does follows from what
// the pages hold (contents.ts); its pace is set through sysfs (sysfs.ts).

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {do_madvise} from '../../kernel/mm/madvise.ts';
import {sys_mmap} from '../../kernel/mm/mmap.ts';
import {propsFor, vmFlags} from '../../kernel/mm/mmap_prot.ts';
import {ksm_disable_merge_any, ksm_enable_merge_any} from '../../kernel/mm/ksm_merge_any.ts';
import {run_store} from '../../kernel/mm/ksm_sysfs.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {type BindingContext, type BindingTable, type Outcome, outcomeOf} from './binding.ts';

function* ksm_run({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const {ksm} = kernel.mm;
  if (ksm === null) return 'failed';
  return outcomeOf(yield* run_store(ksm, t, argNumber(events, i, 0)));
}

const PROT_RW = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MADV_MERGEABLE = 12;

/** Mergeable pages of which the recording shows only that ksmd merged them: [first, end). */
function* mapUnseen({kernel}: BindingContext, t: Task, first: number, end: number): Code<Outcome> {
  const props = propsFor(vmFlags(kernel, PROT_RW, MAP_PRIVATE_ANONYMOUS), null);
  const area = {start: first, fixed: true, pages: end - first, pgoff: 0, props, populate: true};
  const start = yield* sys_mmap(kernel, t, area);
  if (start < 0) return 'failed';
  return outcomeOf(yield* do_madvise(kernel, t, first, end - first, MADV_MERGEABLE));
}

/**
 * The caller's mm enters outside of madvise: by prctl, which makes all that it has and will have
 * mergeable. In a recording that shows nothing else of the mm, pages that ksmd merged are mapped
 * now.
 */
function* ksm_enter(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, contents} = context;
  const {ksm} = kernel.mm;
  if (ksm === null || t.mm === null) return 'skipped';
  const unseen = contents?.pagesOf(i);
  if (unseen !== undefined) {
    return yield* mapUnseen(context, t, Math.min(...unseen), Math.max(...unseen) + 1);
  }
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
