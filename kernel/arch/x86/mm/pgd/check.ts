// The checks of kernel.md A.7 on PGDs: an entry that a completed synchronisation should have brought everywhere and that
// nothing will repair is *missed*; an entry that differs from the reference is stale; one that names a freed table dangles.
//
// A PGD is looked at when it is freed and when `auditPgds` is called at quiescence: so every mm is judged, however short its
// life, at the price of a few loads. Scenario runs also ask for a look some time after every walk (`afterWalks`), which
// catches what a later walk would repair. Nothing is counted twice (`KernelPgd.missed`).
//
// Not missed: an entry of the vmalloc range where vmalloc_fault exists; a PGD that count-at-switch will bring up to date
// when it is switched to; an entry whose walk is still under way; a PGD whose creator is not finished.

import {Timer} from '../../../../../machine/engine.ts';
import {nsToTicks} from '../../../../../machine/time.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {KernelPageTables} from '../page_tables.ts';
import type {KernelPgd} from '../pgd_pool.ts';

/** Stores that are older than this have left every store buffer; how long after a walk the scenario check comes. */
const SETTLED_TICKS = nsToTicks(20_000);

/** Judge of the PGDs of one machine. */
export class PgdChecks {
  /** Scenario mode: look at every PGD after every walk. */
  afterWalks = false;
  private walks = 0;
  /** Per entry: number of the last walk that was completed since the reference entry changed; 0 for none. */
  private readonly walkOf: Float64Array;

  constructor(
    readonly kernel: Kernel,
    readonly tables: KernelPageTables,
  ) {
    this.walkOf = new Float64Array(tables.layout.entries);
  }

  /** Number for a walk that begins. */
  beginWalk(): number {
    return ++this.walks;
  }

  /** Walk `walk` has brought entry `index` to every PGD that it saw. */
  endWalk(walk: number, index: number): void {
    this.walkOf[index] = walk;
    if (!this.afterWalks) return;
    const {engine} = this.kernel.machine;
    const newest = this.tables.pool.newest;
    const timer = new Timer(engine, () => {
      engine.unregister(timer);
      this.tables.pool.forEach((pgd) => {
        const settled = engine.now - pgd.completedAt >= SETTLED_TICKS;
        if (pgd.sequence <= newest && pgd.completedAt >= 0 && settled) this.examine(pgd);
      });
    });
    engine.schedule(timer, engine.now + SETTLED_TICKS);
  }

  /** The reference entry changed: what PGDs hold is judged only after the next walk. */
  referenceChanged(index: number): void {
    this.walkOf[index] = 0;
  }

  /** Looks at one PGD and counts what is new; returns the entries that it misses now. */
  examine(pgd: KernelPgd): number {
    const {tables, kernel} = this;
    const {storeBuffers, engine} = kernel.machine;
    if (storeBuffers.pending !== 0) storeBuffers.settle(engine.now);
    let missing = 0;
    for (const index of tables.populated) {
      const ref = tables.swapper_pg_dir[index];
      const own = pgd.cells[pgd.base + index];
      if (ref === own) continue;
      if (own !== 0) this.judgeStale(pgd, index, own);
      else if (this.isMissed(pgd, index)) {
        missing++;
        if (missing > pgd.missed) this.report(pgd, index);
      }
    }
    pgd.missed = Math.max(pgd.missed, missing);
    return missing;
  }

  private isMissed(pgd: KernelPgd, index: number): boolean {
    const {tables, kernel} = this;
    if (pgd.completedAt < 0 || this.walkOf[index] === 0) return false;
    if (tables.features.vmallocFault && tables.isVmalloc(tables.entryStart(index))) return false;
    if (kernel.design.pgd === 'count-at-switch')
      return pgd.kernelCount >= tables.publishedGeneration;
    return true;
  }

  private report(pgd: KernelPgd, index: number): void {
    const {checks} = this.kernel;
    const visited = pgd.lastWalk >= this.walkOf[index];
    checks.missedPgdEntries++;
    checks.count(visited ? 'pgd_missed_not_indexed' : 'pgd_missed_unseen');
    const why = visited
      ? 'the walk came by but did not index the PGD by address'
      : 'the walk did not see the mm, and its own copy read the old reference entry';
    checks.finding(`missed PGD entry: mm ${pgd.mm?.id ?? 0} lacks kernel entry ${index}: ${why}`);
  }

  private judgeStale(pgd: KernelPgd, index: number, own: number): void {
    const {checks} = this.kernel;
    if (pgd.stale === index) return;
    pgd.stale = index;
    const dangling = this.tables.tables.isDangling(own);
    checks.count(dangling ? 'pgd_dangling_entries' : 'pgd_stale_entries');
    const what = dangling ? 'a freed page table' : 'another entry than the reference';
    checks.finding(`stale PGD entry: mm ${pgd.mm?.id ?? 0} has ${what} in kernel entry ${index}`);
  }
}

/**
 * Looks at every PGD of a live mm, at quiescence. Returns how many entries are missing for good, all told; what had not
 * been counted yet goes into checks.missedPgdEntries.
 */
export function auditPgds(kernel: Kernel): number {
  const {storeBuffers} = kernel.machine;
  storeBuffers.settle(Number.MAX_SAFE_INTEGER);
  let missing = 0;
  const {pool, checks} = kernel.pageTables;
  pool.forEach((pgd) => {
    if (pgd.mm !== null && pgd.mm.users > 0) missing += checks.examine(pgd);
  });
  return missing;
}
