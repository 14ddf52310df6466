// mm/migrate.c: migrate_pages, 6.18. Folios that the caller has isolated move to folios that it
// provides.
//
// 6.3+ (batched): up to 512 pages at a time are first all unmapped (locked, migration entries in
// place), then the CPUs flush once, then all are moved. Locks are only tried while others are held;
// a synchronous caller gets what is left one by one, with waiting. Before, each folio is unmapped,
// flushed and moved by itself. What fails with -EAGAIN is tried 10 times in all. Huge pages move
// whole (4.14+) or are split by the caller before isolation; one that finds no 2 MB on the target
// is split here and moves page by page.

import type {Code} from '../../machine/process.ts';
import {EAGAIN, EBUSY, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapped} from './folio_counts.ts';
import {folio_add_lru, lru_add_drain} from './folio_lru.ts';
import {ksm_may_migrate} from './ksm_rmap.ts';
import {folio_isolate_lru, move_to_new_folio} from './migrate_folio.ts';
import {
  folio_nr_pages,
  folio_test_anon,
  folio_test_ksm,
  folio_test_large,
  HPAGE_PMD_NR,
  mappingId,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_locked, PG_mlocked, PG_uptodate, PG_writeback} from './page_flags.ts';
import {folio_lock, folio_trylock, folio_unlock, folio_wait_writeback} from './page_io.ts';
import {remove_migration_ptes, try_to_migrate} from './rmap_migrate.ts';
import {newUnmapBatch, try_to_unmap_flush, type UnmapBatch} from './rmap_unmap_flush.ts';

const NR_MAX_BATCHED_MIGRATION = HPAGE_PMD_NR;
const NR_MAX_MIGRATE_PAGES_RETRY = 10;
const NR_MAX_MIGRATE_ASYNC_RETRY = 3;
const NR_MAX_MIGRATE_SYNC_RETRY = 7;

/** enum migrate_mode. */
export type MigrateMode = 'async' | 'sync-light' | 'sync';

/** new_folio_t: head of a new folio of the order of `src`, not on the LRU; 0 for none. Plain. */
export type NewFolio = (src: number) => number;

/** What migrate_pages did. */
export interface MigrateResult {
  /** Folios that did not move (nr_failed), those of split large ones included. */
  failed: number;
  /** -ENOMEM when there was no memory, else 0. */
  error: number;
  /** Pages that moved. */
  succeeded: number;
  /** Folios that are still isolated: put them back. */
  readonly remaining: number[];
}

/** One call of migrate_pages on its way. */
class Pass {
  failedPages = 0;
  thpSucceeded = 0;
  thpFailed = 0;
  thpSplit = 0;
  readonly split: number[] = [];
  readonly result: MigrateResult = {failed: 0, error: 0, succeeded: 0, remaining: []};

  constructor(
    readonly k: Kernel,
    readonly t: Task,
    readonly getNew: NewFolio,
  ) {}
}

/** A folio that is unmapped and waits to be moved. */
interface Unmapped {
  readonly src: number;
  readonly dst: number;
  readonly wasMapped: boolean;
  readonly wasMlocked: boolean;
}

/**
 * migrate_pages: moves `from` (heads; isolated, one reference of the caller's each). Folios that
 * moved are gone from the caller's hands.
 */
export function* migrate_pages(
  k: Kernel,
  t: Task,
  from: readonly number[],
  getNew: NewFolio,
  mode: MigrateMode,
): Code<MigrateResult> {
  const {migration, pages} = k.mm;
  const pass = new Pass(k, t, getNew);
  t.cpu.charge(migration.costs.migrateBaseTicks, migration.fns.migrate_pages_batch);
  for (let at = 0; at < from.length && pass.result.error === 0; ) {
    const batch: number[] = [];
    let n = 0;
    while (at < from.length && n < NR_MAX_BATCHED_MIGRATION) {
      n += folio_nr_pages(pages, from[at]);
      batch.push(from[at++]);
    }
    yield* migrateSome(pass, batch, mode);
    if (pass.result.error !== 0) pass.result.remaining.push(...from.slice(at));
    else yield* migrateSplit(pass);
  }
  pass.result.remaining.push(...pass.split);
  const {result} = pass;
  if (result.remaining.length === 0) result.failed = 0;
  migration.count('pgmigrate_success', result.succeeded);
  migration.count('pgmigrate_fail', pass.failedPages);
  migration.count('thp_migration_success', pass.thpSucceeded);
  migration.count('thp_migration_fail', pass.thpFailed);
  migration.count('thp_migration_split', pass.thpSplit);
  return result;
}

/** The pages of large folios that were split, once. */
function* migrateSplit(pass: Pass): Code {
  if (pass.split.length === 0) return;
  const singles = pass.split.splice(0);
  yield* migrate_pages_batch(pass, singles, 'async', 1, pass.result.remaining);
}

function* migrateSome(pass: Pass, folios: number[], mode: MigrateMode): Code {
  const {result} = pass;
  if (!pass.k.mm.migration.batched) {
    yield* migrateOneByOne(pass, folios, mode, NR_MAX_MIGRATE_PAGES_RETRY);
    return;
  }
  if (mode === 'async') {
    yield* migrate_pages_batch(pass, folios, mode, NR_MAX_MIGRATE_PAGES_RETRY, result.remaining);
    return;
  }
  // migrate_pages_sync: what the asynchronous passes leave is not counted as failed yet.
  const before = {failed: result.failed, pages: pass.failedPages};
  const left: number[] = [];
  yield* migrate_pages_batch(pass, folios, 'async', NR_MAX_MIGRATE_ASYNC_RETRY, left);
  if (result.error !== 0) {
    result.remaining.push(...left);
    return;
  }
  result.failed = before.failed;
  pass.failedPages = before.pages;
  yield* migrateOneByOne(pass, left, mode, NR_MAX_MIGRATE_SYNC_RETRY);
}

/** Each by itself; up to `passes` times over those that say -EAGAIN. */
function* migrateOneByOne(pass: Pass, folios: number[], mode: MigrateMode, passes: number): Code {
  for (let i = 0; i < folios.length; i++) {
    yield* migrate_pages_batch(pass, [folios[i]], mode, passes, pass.result.remaining);
    if (pass.result.error === 0) continue;
    pass.result.remaining.push(...folios.slice(i + 1));
    return;
  }
}

/** migrate_pages_batch: those that stay go to `left`. */
function* migrate_pages_batch(
  pass: Pass,
  folios: readonly number[],
  mode: MigrateMode,
  passes: number,
  left: number[],
): Code {
  const {k, t, result} = pass;
  const {pages} = k.mm;
  const batch = mode === 'async' && k.mm.migration.batched ? newUnmapBatch(k) : null;
  const unmapped: Unmapped[] = [];
  let todo = [...folios];
  for (let n = 0; n < passes && todo.length > 0 && result.error === 0; n++) {
    const again: number[] = [];
    for (let i = 0; i < todo.length; i++) {
      const head = todo[i];
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
      const rc = yield* prepare(pass, head, mode, batch, unmapped);
      if (rc === -EAGAIN) again.push(head);
      else if (rc === -ENOMEM) {
        result.error = -ENOMEM;
        fail(pass, head, left);
        for (const rest of [...again.splice(0), ...todo.slice(i + 1)]) fail(pass, rest, left);
        break;
      } else if (rc < 0) fail(pass, head, left);
    }
    todo = again;
  }
  for (const head of todo) fail(pass, head, left);
  yield* try_to_unmap_flush(k, t, batch);
  let moving = unmapped;
  for (let n = 0; n < passes && moving.length > 0; n++) {
    const again: Unmapped[] = [];
    for (const one of moving) {
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
      const huge = folio_nr_pages(pages, one.src);
      if ((yield* migrate_folio_move(k, t, one)) !== 0) again.push(one);
      else {
        result.succeeded += huge;
        if (huge === HPAGE_PMD_NR) pass.thpSucceeded++;
      }
    }
    moving = again;
  }
  for (const one of moving) {
    yield* undo(k, t, one);
    fail(pass, one.src, left);
  }
}

function fail(pass: Pass, head: number, left: number[]): void {
  const n = folio_nr_pages(pass.k.mm.pages, head);
  pass.result.failed++;
  pass.failedPages += n;
  if (n === HPAGE_PMD_NR) pass.thpFailed++;
  left.push(head);
}

/** One folio's way to being unmapped, or split. 1: it is gone from the list. */
function* prepare(
  pass: Pass,
  head: number,
  mode: MigrateMode,
  batch: UnmapBatch | null,
  unmapped: Unmapped[],
): Code<number> {
  const {k, t} = pass;
  const {mm} = k;
  const {pages, migration} = mm;
  t.cpu.charge(migration.costs.migrateFolioTicks, migration.fns.migrate_pages_batch);
  if (t.cpu.settle()) yield;
  if (pages.refcount.get(head) === 1) {
    // Freed by everybody else meanwhile.
    pass.result.succeeded += folio_nr_pages(pages, head);
    folio_put(k, t, head);
    return 1;
  }
  const large = folio_test_large(pages, head);
  const whole = !large || (migration.thpMigration && mm.huge?.deferredSplit.has(head) !== true);
  if (!whole && (yield* trySplit(pass, head))) return 1;
  const dst = pass.getNew(head);
  if (dst === 0) {
    if (large && (yield* trySplit(pass, head))) return 1;
    return -ENOMEM;
  }
  return yield* migrate_folio_unmap(k, t, head, dst, mode, batch, unmapped);
}

/** try_split_folio: the folio's pages go to the list of split ones, each isolated. */
function* trySplit(pass: Pass, head: number): Code<boolean> {
  const {k, t} = pass;
  const {pages, hooks} = k.mm;
  if (hooks.split_folio === null || !folio_test_anon(pages, head)) return false;
  const n = folio_nr_pages(pages, head);
  const owner = mappingId(pages, head);
  if (!folio_trylock(k, head)) return false;
  const done = yield* hooks.split_folio(t, head, head);
  folio_unlock(k, head);
  if (!done) return false;
  pass.thpSplit++;
  pass.split.push(head);
  for (let pfn = head + 1; pfn < head + n; pfn++) {
    if (pages.refcount.isZero(pfn) || mappingId(pages, pfn) !== owner) continue;
    // Locked and off the LRU like the folio it was part of: this list holds it now.
    pages.flags[pfn] &= ~PG_locked;
    pages.refcount.increment(pfn);
    pass.split.push(pfn);
  }
  return true;
}

/** migrate_folio_unmap: 0 and an entry in `unmapped`, -EAGAIN, or -EBUSY. */
function* migrate_folio_unmap(
  k: Kernel,
  t: Task,
  src: number,
  dst: number,
  mode: MigrateMode,
  batch: UnmapBatch | null,
  unmapped: Unmapped[],
): Code<number> {
  const {pages} = k.mm;
  if (folio_test_ksm(pages, src) && !ksm_may_migrate(k, src)) {
    folio_put(k, t, dst);
    return -EBUSY;
  }
  if (!folio_trylock(k, src)) {
    const wait =
      mode === 'sync' || (mode === 'sync-light' && (pages.flags[src] & PG_uptodate) !== 0);
    if (!wait) {
      folio_put(k, t, dst);
      return -EAGAIN;
    }
    yield* folio_lock(k, t, src);
  }
  if ((pages.flags[src] & PG_writeback) !== 0) {
    if (mode !== 'sync') {
      folio_unlock(k, src);
      folio_put(k, t, dst);
      return -EBUSY;
    }
    yield* folio_wait_writeback(k, t, src);
  }
  folio_trylock(k, dst);
  const wasMlocked = (pages.flags[src] & PG_mlocked) !== 0;
  const wasMapped = folio_mapped(pages, src);
  const one = {src, dst, wasMapped, wasMlocked};
  if (wasMapped) yield* try_to_migrate(k, t, src, batch);
  if (folio_mapped(pages, src)) {
    yield* undo(k, t, one);
    return -EAGAIN;
  }
  unmapped.push(one);
  return 0;
}

/** migrate_folio_undo_src and _dst: mapped again as it was, unlocked. */
function* undo(k: Kernel, t: Task, {src, dst, wasMapped}: Unmapped): Code {
  if (wasMapped) yield* remove_migration_ptes(k, t, src, src);
  folio_unlock(k, src);
  folio_unlock(k, dst);
  folio_put(k, t, dst);
}

/** migrate_folio_move: 0, or -EAGAIN with everything as it was. */
function* migrate_folio_move(k: Kernel, t: Task, one: Unmapped): Code<number> {
  const {src, dst} = one;
  const rc = yield* move_to_new_folio(k, t, dst, src);
  if (rc !== 0) return rc;
  folio_add_lru(k, t, dst);
  if (one.wasMlocked) lru_add_drain(k, t);
  if (one.wasMapped) yield* remove_migration_ptes(k, t, src, dst);
  folio_unlock(k, dst);
  folio_put(k, t, dst);
  folio_unlock(k, src);
  folio_put(k, t, src);
  return 0;
}

/** Isolates each of `heads` that can be; the others are left where they are. */
export function isolateAll(k: Kernel, t: Task, heads: Iterable<number>): number[] {
  const isolated: number[] = [];
  for (const head of heads) if (folio_isolate_lru(k, t, head)) isolated.push(head);
  return isolated;
}
