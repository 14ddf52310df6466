// The checks on PGDs: an entry that a completed synchronisation should have brought everywhere and
// that nothing will repair is *missed*; an entry that differs from the reference is stale; one that
// names a freed table dangles.
//
// When a PGD is judged:
// - some time after the first walk for an entry that changed, if the walk goes along the task list
//   or `afterWalks` asks for it: every mm that a task on the list has. By then all stores of the
//   time of the walk are visible.
// - when it is freed: an entry that a walk came by for and did not write, and any that dangles.
//   What no walk came by for is no evidence then, because an exiting mm leaves the task list before
//   its PGD goes.
// - by `auditPgds`, at quiescence: every mm that a task has.
// Nothing is counted twice (`KernelPgd.missed`).
//
// Not missed: an entry of the vmalloc range where vmalloc_fault exists; a PGD that count-at-switch
// will bring up to date when it is switched to; an entry whose walk is still under way; a PGD whose
// creator is not finished. An mm that only a lazy kernel thread still uses is not "visible": the
// lockless designs do not reach it, and no check here holds it against them.

import {Timer} from '../../../../../machine/process.ts';
import {nsToTicks} from '../../../../../machine/time.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {KernelPageTables} from '../page_tables.ts';
import type {KernelPgd} from '../pgd_pool.ts';

/**
 * Stores that are older than this have left every store buffer; how long after a walk the check
 * comes.
 */
const SETTLED_TICKS = nsToTicks(20_000);

/** Designs whose walks cannot find a PGD that is on no task. */
const WALKS_TASKS: ReadonlySet<string> = new Set([
  'lockless-v1',
  'lockless-v2',
  'lockless-2015-09',
  'sync-at-vmalloc',
]);

/** Judge of the PGDs of one machine. */
export class PgdChecks {
  /** Look at every visible mm after a walk that had something new to bring. */
  afterWalks: boolean;
  private walks = 0;
  /** Per entry: number of the last walk completed since the reference entry changed; 0 for none. */
  private readonly walkOf: Float64Array;
  private timer: Timer | null = null;
  private tooYoung = 0;

  constructor(
    readonly kernel: Kernel,
    readonly tables: KernelPageTables,
  ) {
    this.walkOf = new Float64Array(tables.layout.entries);
    this.afterWalks = WALKS_TASKS.has(kernel.design.pgd);
  }

  /** Number for a walk that begins. */
  beginWalk(): number {
    return ++this.walks;
  }

  /** Walk `walk` has brought entry `index` to every PGD that it saw. */
  endWalk(walk: number, index: number): void {
    const isNew = this.walkOf[index] === 0;
    this.walkOf[index] = walk;
    if (!isNew || !this.afterWalks) return;
    const {engine} = this.kernel.machine;
    this.timer ??= new Timer(engine, () => this.examineLater());
    if (this.timer.pendingKey === 0) engine.schedule(this.timer, engine.now + SETTLED_TICKS);
  }

  /** Examines what is old enough, and comes back for PGDs whose creator's stores may still wait. */
  private examineLater(): void {
    const {engine} = this.kernel.machine;
    this.tooYoung = 0;
    this.examineVisible(SETTLED_TICKS);
    if (this.tooYoung > 0) engine.schedule(this.timer!, engine.now + SETTLED_TICKS);
  }

  /** The reference entry changed: what PGDs hold is judged only after the next walk. */
  referenceChanged(index: number): void {
    this.walkOf[index] = 0;
  }

  /**
   * Looks at the PGD of every mm that a task on the list has, and that was finished `ageTicks` ago;
   * returns the entries missing in all of them together.
   */
  examineVisible(ageTicks: number): number {
    const {taskList, machine} = this.kernel;
    const [cpu] = machine.cpus;
    const seen = new Set<KernelPgd>();
    let missing = 0;
    for (let g = taskList.nextProcess(cpu, null); g !== null; g = taskList.nextProcess(cpu, g)) {
      for (let p = taskList.nextThread(cpu, g, null); p !== null; ) {
        const pgd = (taskList.loadMm(cpu, p)?.pgd ?? null) as KernelPgd | null;
        if (pgd !== null && !pgd.freed && !seen.has(pgd)) {
          seen.add(pgd);
          if (machine.engine.now - pgd.completedAt < ageTicks) this.tooYoung++;
          else missing += this.examine(pgd, true);
        }
        p = taskList.nextThread(cpu, g, p);
      }
    }
    return missing;
  }

  /**
   * Looks at one PGD and counts what is new; returns the entries that it misses. `visible`: a task
   * has its mm.
   */
  examine(pgd: KernelPgd, visible: boolean): number {
    const {tables, kernel} = this;
    const {storeBuffers, engine} = kernel.machine;
    if (storeBuffers.pending !== 0) storeBuffers.settle(engine.now);
    let missing = 0;
    for (const index of tables.populated) {
      const ref = tables.swapper_pg_dir[index];
      const own = pgd.cells[pgd.base + index];
      if (ref === own) continue;
      if (own !== 0) this.judgeStale(pgd, index, own, visible);
      else if (this.isMissed(pgd, index, visible)) {
        missing++;
        if (missing > pgd.missed) this.report(pgd, index);
      }
    }
    pgd.missed = Math.max(pgd.missed, missing);
    return missing;
  }

  private isMissed(pgd: KernelPgd, index: number, visible: boolean): boolean {
    const {tables, kernel, walkOf} = this;
    if (pgd.completedAt < 0 || walkOf[index] === 0) return false;
    if (!visible && pgd.lastWalk < walkOf[index]) return false;
    if (tables.features.vmallocFault && tables.isVmalloc(tables.entryStart(index))) return false;
    if (kernel.design.pgd === 'count-at-switch') {
      return pgd.kernelCount >= tables.publishedGeneration;
    }
    return true;
  }

  private report(pgd: KernelPgd, index: number): void {
    const {checks} = this.kernel;
    const visited = pgd.lastWalk >= this.walkOf[index];
    checks.missedPgdEntries++;
    checks.count(visited ? 'pgd_missed_not_indexed' : 'pgd_missed_unseen');
    const why = visited
      ? 'the walk came by but did not index the PGD by address'
      : 'no walk saw the mm, and its own copy read the old reference entry';
    checks.finding(`missed PGD entry: mm ${pgd.mm?.id ?? 0} lacks kernel entry ${index}: ${why}`);
  }

  private judgeStale(pgd: KernelPgd, index: number, own: number, visible: boolean): void {
    const {checks} = this.kernel;
    const dangling = this.tables.tables.isDangling(own);
    const walk = this.walkOf[index];
    const judged = dangling || (walk !== 0 && (visible || pgd.lastWalk >= walk));
    if (!judged || pgd.completedAt < 0 || pgd.stale === index) return;
    pgd.stale = index;
    checks.count(dangling ? 'pgd_dangling_entries' : 'pgd_stale_entries');
    const what = dangling ? 'a freed page table' : 'another entry than the reference';
    checks.finding(`stale PGD entry: mm ${pgd.mm?.id ?? 0} has ${what} in kernel entry ${index}`);
  }
}

/**
 * Looks at every PGD of a live, visible mm, at quiescence. Returns how many entries are missing for
 * good, all told; what had not been counted yet goes into checks.missedPgdEntries.
 */
export function auditPgds(kernel: Kernel): number {
  kernel.machine.storeBuffers.settle(Number.MAX_SAFE_INTEGER);
  return kernel.pageTables.checks.examineVisible(0);
}
