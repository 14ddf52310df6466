// mm/oom_kill.c: whom to kill. select_bad_process asks every process (of the machine, or of the
// memory cgroup that is out of memory) for its oom_badness and takes the largest; a victim that has
// not let go of its memory yet ends the search, as nobody else needs to die.
//
// The score [2.6.36+] is pages resident, swapped out and in page tables, plus oom_score_adj
// thousandths of all memory. To 4.16 a task of root counted 3 % less: here nobody is root. The
// score before [2.6.32, read] is total_vm, plus half of each child's that has an mm of its own;
// what it divided by, CPU and run time in units of minutes, is 1 in runs as short as these.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {thread_group_empty} from '../task_tree.ts';
import {isBefore} from '../version.ts';
import type {OomFns} from './oom_costs.ts';
import {MM_SWAPENTS} from './rss.ts';
import {get_mm_counter, get_mm_rss} from './rss_stat.ts';
import {MMF_OOM_SKIP} from './user_mm.ts';

export const OOM_SCORE_ADJ_MIN = -1000;
export const OOM_SCORE_ADJ_MAX = 1000;

/** struct oom_control. */
export class OomControl {
  totalPages = 0;
  chosen: Task | null = null;
  chosenPoints = -Infinity;
  /** A victim is still on its way out: kill nobody. */
  aborted = false;

  constructor(
    /** Cgroup that is at its limit, 0 for the machine. */
    readonly memcg: number,
    readonly order: number,
  ) {}
}

/** oom_unkillable_task. */
export function oom_unkillable_task(k: Kernel, p: Task): boolean {
  return p.isKernelThread || p.leader === k.init;
}

/** True when nothing more is to be had from this mm: reaped, or torn down. */
export function isOomSkipped(mm: MmStruct): boolean {
  return mm.user === null || (mm.user.flags & MMF_OOM_SKIP) !== 0;
}

function in_vfork(p: Task): boolean {
  return p.vforkParent !== null && p.vforkParent.mm === p.mm;
}

/** oom_badness of a process: its score, -Infinity for one that must not or need not be killed. */
export function* oom_badness(
  k: Kernel,
  t: Task,
  p: Task,
  totalPages: number,
  fns: OomFns,
): Code<number> {
  if (oom_unkillable_task(k, p)) return -Infinity;
  const thread = yield* k.taskList.find_lock_task_mm(t, p, fns.oom_badness);
  if (thread === null) return -Infinity;
  t.cpu.charge(k.mm.oom.costs.badnessTicks, fns.oom_badness);
  const points = scoreOf(k, thread, totalPages);
  const lock = thread.allocLock!;
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  return points;
}

function scoreOf(k: Kernel, p: Task, totalPages: number): number {
  const mm = p.mm!;
  const adj = p.signal!.oomScoreAdj;
  if (adj === OOM_SCORE_ADJ_MIN || mm.user === null) return -Infinity;
  if ((mm.user.flags & MMF_OOM_SKIP) !== 0 || in_vfork(p)) return -Infinity;
  if (isBefore(k.facts.version, '2.6.36')) return oldScore(p, mm, adj);
  const pages = get_mm_rss(mm) + get_mm_counter(mm, MM_SWAPENTS);
  const tables = mm.user.pgd.pgtablesBytes / 4096;
  return pages + tables + adj * Math.floor(totalPages / 1000);
}

/** badness() of 2.6.32; oom_adj is taken as oom_score_adj in its steps. */
function oldScore(p: Task, mm: MmStruct, adj: number): number {
  let points = mm.user!.space.totalVm;
  for (const child of p.children) {
    const {user} = child.mm ?? {user: null};
    if (child.mm !== mm && user !== null) points += Math.floor(user.space.totalVm / 2) + 1;
  }
  const shift = Math.round((adj * 15) / 1000);
  if (shift > 0) return Math.max(points, 1) * 2 ** shift;
  return Math.floor(points / 2 ** -shift);
}

/** select_bad_process: fills `oc` in. */
export function* select_bad_process(k: Kernel, t: Task, oc: OomControl, fns: OomFns): Code {
  k.rcu.readLock(t);
  for (let p = k.taskList.nextProcess(t.cpu, null); p !== null && !oc.aborted; ) {
    k.taskList.chargeStep(t.cpu, p, fns.out_of_memory);
    if (t.cpu.settle()) yield;
    yield* oom_evaluate_task(k, t, oc, p, fns);
    p = k.taskList.nextProcess(t.cpu, p);
  }
  k.rcu.readUnlock(t);
}

function* oom_evaluate_task(k: Kernel, t: Task, oc: OomControl, p: Task, fns: OomFns): Code {
  if (oom_unkillable_task(k, p)) return;
  if (oc.memcg !== 0 && memcgOf(p) !== oc.memcg) return;
  const {oomMm} = p.signal!;
  if (oomMm !== null) {
    if (!isOomSkipped(oomMm)) oc.aborted = true;
    return;
  }
  const points = yield* oom_badness(k, t, p, oc.totalPages, fns);
  if (points === -Infinity || points < oc.chosenPoints) return;
  // Of equals the first was kept up to 5.2 (RECALLED), the last is since.
  if (points === oc.chosenPoints && isBefore(k.facts.version, '5.3')) return;
  oc.chosen = p;
  oc.chosenPoints = points;
}

/** process_shares_mm. */
export function process_shares_mm(p: Task, mm: MmStruct): boolean {
  return p.threads.some((thread) => thread.mm === mm);
}

function isDying(p: Task): boolean {
  return p.signal!.groupExit || (p.exiting && thread_group_empty(p.leader));
}

/** task_will_free_mem: `p` and everybody who shares its mm are on their way out. */
export function* task_will_free_mem(k: Kernel, t: Task, p: Task, fns: OomFns): Code<boolean> {
  const {mm} = p;
  if (mm === null || !isDying(p) || isOomSkipped(mm)) return false;
  if (mm.users <= 1) return true;
  let all = true;
  k.rcu.readLock(t);
  yield* k.taskList.for_each_process(t, fns.out_of_memory, (other) => {
    if (other.signal !== p.signal && process_shares_mm(other, mm) && !isDying(other)) all = false;
    return undefined;
  });
  k.rcu.readUnlock(t);
  return all;
}

/** The cgroup that a process's memory is charged to; threads may have lost the mm already. */
function memcgOf(p: Task): number {
  const {oomMm} = p.signal!;
  if (oomMm !== null) return oomMm.user?.memcg ?? -1;
  const owner = p.threads.find((thread) => thread.mm !== null);
  return owner?.mm?.user?.memcg ?? -1;
}
