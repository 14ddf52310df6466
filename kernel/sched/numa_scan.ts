// kernel/sched/fair.c: task_tick_numa and task_numa_work, 6.18: a task that has run for its scan
// period makes the next 256 MB of its mm's pages fault, on its way back to user mode.
//
// mmap_lock is only tried, for read; per VMA change_prot_numa, with mprotect's notifications. 6.4+:
// VMAs that this task has had no hinting fault in are left to other threads, unless nothing else is
// left (6.7+ RECALLED). A task pays at least 32 times its scanning in other run time before it
// scans again. Linux looks at every tick (4 ms); here a task looks when it comes from user work and
// now and then in a long run of accesses.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {change_prot_numa} from '../mm/mprotect_walk.ts';
import type {UserMm} from '../mm/user_mm.ts';
import type {VmArea} from '../mm/vma.ts';
import {
  VM_ACCESS,
  VM_HUGETLB,
  VM_IO,
  VM_MIXEDMAP,
  VM_PFNMAP,
  VM_READ,
  VM_WRITE,
} from '../mm/vma_flags.ts';
import type {Task} from '../task.ts';
import {type NumaBalancing, VmaNuma} from './numa.ts';

const MS = nsToTicks(1e6);
const TICK = 4 * MS;
const HPAGE_PAGES = 512;
/** VMA_PID_RESET_PERIOD: times the scan delay. */
const PID_RESET_DELAYS = 4;

/** task_tick_numa: true when `t` should call task_numa_work now. Plain, cheap. */
export function task_tick_numa(numa: NumaBalancing, t: Task): boolean {
  const {mm} = t;
  if (mm === null || mm.user === null || t.exiting || !numa.settings.enabled) return false;
  const run = numa.runTicks(t);
  // No task scans before the shortest of all periods: most never get there.
  const {scanDelayMs, scanPeriodMinMs} = numa.settings;
  if (run <= Math.min(scanDelayMs, scanPeriodMinMs) * MS) return false;
  const state = numa.of(t);
  if (state.workPending) return true;
  const period = state.scanPeriodMs * MS;
  if (run <= state.nodeStampTicks + period) return false;
  const {user} = mm;
  if (user.numaNextScanTick === 0) {
    // The mm is as old as its first task's run time, at least.
    user.numaNextScanTick = numa.k.machine.engine.now - run + numa.settings.scanDelayMs * MS;
  }
  if (state.nodeStampTicks === 0) state.scanPeriodMs = numa.scanMin(user);
  state.nodeStampTicks += period;
  state.workPending = numa.k.machine.engine.now >= user.numaNextScanTick;
  return state.workPending;
}

/** task_numa_work. The caller is on its way to user mode and holds nothing. */
export function* task_numa_work(numa: NumaBalancing, t: Task): Code {
  const {k} = numa;
  const user = t.mm!.user!;
  const {migration} = k.mm;
  numa.of(t).workPending = false;
  t.cpu.charge(migration.costs.numaWorkTicks, migration.fns.task_numa_work);
  if (t.cpu.settle()) yield;
  const {now} = k.machine.engine;
  if (now < user.numaNextScanTick) return;
  const state = numa.of(t);
  if (state.scanPeriodMaxMs === 0) {
    state.scanPeriodMaxMs = numa.scanMax(user);
    state.scanPeriodMs = numa.scanMin(user);
  }
  user.numaNextScanTick = now + state.scanPeriodMs * MS;
  state.nodeStampTicks += 2 * TICK;
  if (!user.mmapLock.tryReadAcquire(t, migration.fns.task_numa_work)) return;
  const began = numa.runTicks(t);
  yield* scan(numa, t, user);
  if (!user.mmapLock.readRelease(t)) yield* user.mmapLock.readReleaseSlow(t);
  if (t.cpu.settle()) yield;
  state.nodeStampTicks += 32 * (numa.runTicks(t) - began);
}

/** How much of a scan is left, in pages. */
interface Budget {
  pages: number;
  virtual: number;
}

function* scan(numa: NumaBalancing, t: Task, user: UserMm): Code {
  const pages = numa.settings.scanSizeMb << 8;
  const budget = {pages, virtual: pages * 8};
  let outcome = yield* scanPass(numa, t, user, budget, false);
  if (outcome === 'skipped') outcome = yield* scanPass(numa, t, user, budget, true);
  if (outcome !== 'stopped') resetScan(user);
}

/**
 * From the scan's offset to the last VMA, or until the budget is used up ('stopped'). 'skipped':
 * the end was reached, but VMAs that only others use were left out. `forced`: one such VMA is
 * scanned.
 */
function* scanPass(
  numa: NumaBalancing,
  t: Task,
  user: UserMm,
  budget: Budget,
  forced: boolean,
): Code<'stopped' | 'end' | 'skipped'> {
  const {costs, fns} = numa.k.mm.migration;
  let skipped = false;
  let vma: VmArea | null = user.space.tree.find(user.numaScanOffset);
  if (vma === null) {
    resetScan(user);
    vma = user.space.tree.first;
  }
  for (; vma !== null; vma = vma.next) {
    t.cpu.charge(costs.numaVmaTicks, fns.task_numa_work);
    if (!scannable(vma)) continue;
    const known = numa.perVma ? vmaState(numa, user, vma) : null;
    const may = known === null ? 'yes' : mayScan(numa, t, user, vma, known, forced);
    if (may === 'not mine') skipped = true;
    if (may !== 'yes') continue;
    if (yield* scanVma(numa, t, user, vma, budget)) return 'stopped';
    if (known !== null) known.prevScanSeq = user.numaScanSeq;
    if (forced) return 'stopped';
  }
  return skipped && !forced ? 'skipped' : 'end';
}

/** reset_ptenuma_scan. */
function resetScan(user: UserMm): void {
  user.numaScanSeq++;
  user.numaScanOffset = 0;
}

/** vma_migratable, vma_policy_mof, and what is never worth it. */
function scannable(vma: VmArea): boolean {
  const {flags} = vma;
  if ((flags & (VM_IO | VM_PFNMAP | VM_HUGETLB | VM_MIXEDMAP)) !== 0 || vma.ops === 'dax') {
    return false;
  }
  if (vma.policy !== 0 || (flags & VM_ACCESS) === 0) return false;
  // Libraries' text is expected to be replicated in caches.
  return vma.file === 0 || (flags & (VM_READ | VM_WRITE)) !== VM_READ;
}

function vmaState(numa: NumaBalancing, user: UserMm, vma: VmArea): VmaNuma {
  const known = numa.vma(vma);
  if (known !== null) return known;
  const delay = numa.settings.scanDelayMs * MS;
  const state = new VmaNuma();
  state.startScanSeq = user.numaScanSeq;
  state.nextScanTick = numa.k.machine.engine.now + delay;
  state.pidsActiveResetTick = state.nextScanTick + PID_RESET_DELAYS * delay;
  state.prevScanSeq = user.numaScanSeq - 1;
  numa.addVma(vma, state);
  return state;
}

function mayScan(
  numa: NumaBalancing,
  t: Task,
  user: UserMm,
  vma: VmArea,
  state: VmaNuma,
  forced: boolean,
): 'yes' | 'no' | 'not mine' {
  const {now} = numa.k.machine.engine;
  const seq = user.numaScanSeq;
  if (seq > 0 && now < state.nextScanTick) return 'no';
  if (seq > 0 && now > state.pidsActiveResetTick) {
    state.pidsActiveResetTick += PID_RESET_DELAYS * numa.settings.scanDelayMs * MS;
    state.pidsActiveBefore = state.pidsActive;
    state.pidsActive = 0;
  }
  if (state.prevScanSeq === seq) {
    user.numaScanOffset = vma.end;
    return 'no';
  }
  if (forced || isAccessed(t, user, vma, state)) return 'yes';
  return 'not mine';
}

/** vma_is_accessed. */
function isAccessed(t: Task, user: UserMm, vma: VmArea, state: VmaNuma): boolean {
  if (user.numaScanSeq - state.startScanSeq < 2) return true;
  if (((state.pidsActive | state.pidsActiveBefore) & pidBit(t)) !== 0) return true;
  if (user.numaScanOffset > vma.start) return true;
  return user.numaScanSeq > state.prevScanSeq + t.threads.length;
}

/** vma_set_access_pid_bit: hash_32 of the thread id, 32 bits here where Linux has 64. */
export function pidBit(t: Task): number {
  return 1 << (Math.imul(t.tid, 0x61c88647) >>> 27);
}

/** The VMA in steps of whole huge pages. True: the budget is used up. */
function* scanVma(
  numa: NumaBalancing,
  t: Task,
  user: UserMm,
  vma: VmArea,
  budget: Budget,
): Code<boolean> {
  const {k} = numa;
  let start = Math.max(user.numaScanOffset, vma.start);
  for (;;) {
    const wanted = start + budget.pages;
    const aligned = Math.ceil(wanted / HPAGE_PAGES) * HPAGE_PAGES;
    const end = Math.min(aligned, vma.end);
    const updates = yield* change_prot_numa(k, t, vma, start, end);
    k.mm.migration.count('numa_pte_updates', updates);
    if (updates > 0) budget.pages -= end - start;
    budget.virtual -= end - start;
    start = end;
    user.numaScanOffset = start;
    if (budget.pages <= 0 || budget.virtual <= 0) return true;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (end >= vma.end) return false;
  }
}
