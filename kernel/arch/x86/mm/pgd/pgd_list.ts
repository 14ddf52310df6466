// pgd-list: what mainline has had all along (read in 4.1 to 6.19). Every PGD is on pgd_list;
// pgd_alloc copies the kernel half and links the PGD in one pgd_lock section, so a new reference
// entry is either in the copy's source already or is brought by the walk, which takes the same lock
// after the reference was stored. pgd_free unlinks before the page goes, so a walker never sees a
// freed PGD. The price is one global lock in every fork and exit.
//
// `pgd-list-padded` is Waiman Long's proposal of 2015: the same with pgd_lock on a cache line of
// its own. Where the lock lives is decided in kernel/layout.ts; the code is the same.

import type {Code} from '../../../../../machine/process.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {PgdBase} from './base.ts';
import {PgdList} from './list.ts';
import {EntrySync} from './sync_entry.ts';
import {walkPgdList} from './walk.ts';

/** pgd_list and pgd_lock. */
export class PgdListDesign extends PgdBase {
  readonly pgd_list: PgdList;
  private readonly entrySync: EntrySync;

  constructor(
    kernel: Kernel,
    readonly name: string,
  ) {
    super(kernel);
    this.pgd_list = new PgdList(kernel.machine, kernel.layout.line('pgd_list'));
    this.entrySync = new EntrySync(this.tables);
  }

  *pgd_alloc(t: Task, mm: MmStruct): Code {
    const {pgd_lock, fnAlloc} = this;
    const pgd = this.allocatePage(t, mm);
    if (!pgd_lock.acquire(t, fnAlloc)) yield* pgd_lock.acquireSlow(t, fnAlloc);
    this.copyKernelHalf(t, pgd);
    if (!this.tables.layout.sharedKernelPmd) this.pgd_list.add(t.cpu, pgd, fnAlloc);
    this.markComplete(pgd);
    if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
  }

  /** pgd_dtor does nothing with SHARED_KERNEL_PMD. */
  *pgd_free(t: Task, mm: MmStruct): Code {
    const {pgd_lock, fnFree} = this;
    if (!this.tables.layout.sharedKernelPmd) {
      if (!pgd_lock.acquire(t, fnFree)) yield* pgd_lock.acquireSlow(t, fnFree);
      this.pgd_list.del(t.cpu, mm.pgd as KernelPgd, fnFree);
      if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
    }
    this.freePage(t, mm);
  }

  protected *syncEntry(t: Task, index: number, removed: boolean): Code {
    const {entrySync, pgd_lock, fnSync, tables} = this;
    if (!pgd_lock.acquire(t, fnSync)) yield* pgd_lock.acquireSlow(t, fnSync);
    const walk = tables.checks.beginWalk();
    yield* this.walkAll(t, entrySync.begin(index, walk, removed), fnSync);
    const {bug} = entrySync;
    if (bug === null) tables.checks.endWalk(walk, index);
    if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
    if (bug !== null) this.die(bug);
  }

  override *walkAll(t: Task, visitor: PgdVisitor, fn: number): Code {
    yield* walkPgdList(this.kernel, t, this.pgd_list, visitor, fn);
  }
}
