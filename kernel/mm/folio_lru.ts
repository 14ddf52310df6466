// mm/swap.c: how folios get onto the LRU lists and how many are put at once. A new folio waits in a
// batch of its CPU until the batch is full (31 folios since 6.9, 15 from 4.13, 14 before) and only
// then enters its list under lru_lock. The batch holds a reference meanwhile: that is why a page
// freshly faulted in on another CPU is copied on write instead of reused.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FolioBatch, type Lruvec} from './lru.ts';
import {__folio_put, free_frozen_pages} from './page_alloc.ts';
import {PG_active, PG_lru, PG_mlocked, PG_unevictable} from './page_flags.ts';
import type {VmArea} from './vma.ts';
import {VM_LOCKED, VM_SPECIAL} from './vma_flags.ts';

/** The lru_add batches of all CPUs. */
export class LruAddBatches {
  private readonly byCpu: FolioBatch[] = [];

  constructor(readonly size: number) {}

  of(cpu: number): FolioBatch {
    this.byCpu[cpu] ??= new FolioBatch(this.size);
    return this.byCpu[cpu];
  }

  forEach(visit: (batch: FolioBatch) => void): void {
    for (const batch of this.byCpu) if (batch !== undefined) visit(batch);
  }
}

/** folio_add_lru: the folio will be on its LRU list when this CPU's batch is drained. */
export function folio_add_lru(k: Kernel, t: Task, head: number): void {
  const {mm} = k;
  mm.pages.refcount.increment(head);
  const batch = mm.lruAdd.of(t.cpu.id);
  if (batch.add(mm.pages, head)) folio_batch_move_lru(k, t, batch);
}

/**
 * folio_add_lru_vma: as folio_add_lru; into a locked VMA the folio goes to the unevictable list.
 */
export function folio_add_lru_vma(k: Kernel, t: Task, head: number, vma: VmArea): void {
  if ((vma.flags & (VM_LOCKED | VM_SPECIAL)) === VM_LOCKED) {
    k.mm.pages.flags[head] = (k.mm.pages.flags[head] | PG_mlocked | PG_unevictable) & ~PG_active;
  }
  folio_add_lru(k, t, head);
}

/** lru_add_drain: empties this CPU's batch. */
export function lru_add_drain(k: Kernel, t: Task): void {
  const batch = k.mm.lruAdd.of(t.cpu.id);
  if (batch.count > 0) folio_batch_move_lru(k, t, batch);
}

/**
 * lru_add_drain_all: every CPU's; the callers (migration, mlock of old kernels) pay for the work
 * items themselves.
 */
export function lru_add_drain_all(k: Kernel, t: Task): void {
  k.mm.lruAdd.forEach((batch) => {
    if (batch.count > 0) folio_batch_move_lru(k, t, batch);
  });
}

/**
 * Moves a batch to the lists under one lru_lock section per lruvec, and drops the batch's
 * references.
 */
function folio_batch_move_lru(k: Kernel, t: Task, batch: FolioBatch): void {
  const {mm} = k;
  const {pages, costs, fns} = mm;
  const {folios, count} = batch;
  const {cpu} = t;
  let lruvec: Lruvec | null = null;
  let lock = -1;
  batch.reset();
  for (let i = 0; i < count; i++) {
    const head = folios[i];
    if ((pages.flags[head] & PG_lru) !== 0) continue;
    const next = mm.lruvecs.ofFolio(head);
    if (next !== lruvec) {
      if (lruvec !== null) mm.lruLocks.unlock(cpu, lock);
      lruvec = next;
      lock = mm.lruLock(next);
      mm.lruLocks.lock(cpu, lock, next.node, fns.folio_batch_move_lru);
    }
    lruvec.addFolio(head);
  }
  cpu.charge(count * costs.lruMoveTicks, fns.folio_batch_move_lru);
  if (lruvec !== null) mm.lruLocks.unlock(cpu, lock);
  folios_put(k, t, folios, 0, count);
}

/**
 * folios_put: drops one reference of each of folios[from, to); frees those without any, off the LRU
 * under one lock section per lruvec.
 */
export function folios_put(k: Kernel, t: Task, folios: Int32Array, from: number, to: number): void {
  const {mm} = k;
  const {refcount} = mm.pages;
  const {low} = refcount;
  const freed = mm.freeScratch;
  let n = 0;
  for (let i = from; i < to; i++) {
    const head = folios[i];
    refcount.decrement(head);
    if (low[head] === 0 && refcount.isZero(head)) freed[n++] = head;
  }
  if (n > 0) freeFolios(k, t, freed, n);
}

/** free_unref_folios, and leaving the LRU before it. At most freeScratch.length folios. */
function freeFolios(k: Kernel, t: Task, freed: Int32Array, n: number): void {
  const {mm} = k;
  const {pages, costs, fns} = mm;
  const {cpu} = t;
  let lruvec: Lruvec | null = null;
  let lock = -1;
  let moved = 0;
  for (let i = 0; i < n; i++) {
    const head = freed[i];
    if ((pages.flags[head] & PG_lru) === 0) continue;
    const next = mm.lruvecs.ofFolio(head);
    if (next !== lruvec) {
      if (lruvec !== null) mm.lruLocks.unlock(cpu, lock);
      lruvec = next;
      lock = mm.lruLock(next);
      mm.lruLocks.lock(cpu, lock, next.node, fns.free_unref_folios);
    }
    lruvec.delFolio(head);
    moved++;
  }
  if (moved > 0) cpu.charge(moved * costs.lruMoveTicks, fns.free_unref_folios);
  if (lruvec !== null) mm.lruLocks.unlock(cpu, lock);
  for (let i = 0; i < n; i++) {
    const head = freed[i];
    if (mm.isHugetlb(head)) __folio_put(k, t, head);
    else free_frozen_pages(k, t, head);
  }
}
