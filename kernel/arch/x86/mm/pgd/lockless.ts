// Common part of Ingo Molnar's "lockless pgd_alloc()/pgd_free()" series (June 2015) in its
// postings: no pgd_list; pgd_alloc only clears the kernel half, and arch_pgd_init_late copies it
// once the mm can be found through the task list; whoever changes the reference walks all processes
// under pgd_lock. PGD entries are never cleared (patches 01 and 03).
//
// The creator stores "mm is visible" and then loads the reference; the walker stores the reference
// and then loads "is the mm visible". That is the store-buffering pattern: without a full barrier
// on both sides the new PGD can miss an entry for good (Oleg Nesterov in the thread). The walker's
// is the locked operation of spin_lock(&pgd_lock); the creator's is where the postings differ.

import {assert} from '../../../../../machine/assert.ts';
import type {Code} from '../../../../../machine/process.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import {xen_pgd_pin} from '../../xen/mmu.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {PgdBase} from './base.ts';
import {EntrySync} from './sync_entry.ts';
import {walkProcesses} from './walk.ts';

/** Everything that the postings share; by default as in September 2015. */
export abstract class LocklessDesign extends PgdBase {
  protected readonly fnLate: number;
  protected readonly entrySync: EntrySync;

  constructor(kernel: Kernel) {
    super(kernel);
    this.fnLate = kernel.fn('arch_pgd_init_late');
    this.entrySync = new EntrySync(this.tables);
    this.arch_pgd_init_late = (t, mm) => this.initLate(t, mm);
  }

  /** Zeroes the kernel half; kernel PMDs of private PAE are copied here, as in every version. */
  *pgd_alloc(t: Task, mm: MmStruct): Code {
    const pgd = this.allocatePage(t, mm);
    const {layout} = this.tables;
    if (layout.paging === 'pae-private') {
      if (t.cpu.settle()) yield;
      this.copyKernelHalf(t, pgd);
    } else {
      t.cpu.charge(this.copyTicks / 2, this.fnAlloc);
    }
  }

  *pgd_free(t: Task, mm: MmStruct): Code {
    if (t.cpu.settle()) yield;
    this.freePage(t, mm);
  }

  /**
   * The late copy; `barrier` and `storeEntry` are what the postings differ in. In fork dup_mmap has
   * pinned the child's mm before (Xen), in exec activate_mm will do so after: told apart by whether
   * the mm is the running task's.
   */
  private *initLate(t: Task, mm: MmStruct): Code {
    const pgd = mm.pgd as KernelPgd;
    assert(pgd !== null && !pgd.freed, 'arch_pgd_init_late on a freed PGD');
    if (t.mm !== mm) xen_pgd_pin(this.kernel, t, mm);
    this.barrier(t);
    if (t.cpu.settle()) yield;
    const {tables} = this;
    if (tables.layout.paging !== 'pae-private' && !tables.layout.sharedKernelPmd) {
      for (const index of tables.populated) {
        const ref = tables.reference(t.cpu, index);
        if (ref !== 0) this.storeEntry(t, pgd, index, ref);
      }
      pgd.kernelCount = tables.generation;
    }
    t.cpu.stall(this.kernel.machine.lines.touch(pgd.entryLine, t.cpu), this.fnLate);
    t.cpu.charge(this.copyTicks, this.fnLate);
    this.markComplete(pgd);
  }

  /**
   * The barrier between "visible" and the copy. smp_mb: everything stored before is visible now.
   */
  protected barrier(t: Task): void {
    const {storeBuffers, engine} = this.kernel.machine;
    t.cpu.stall(storeBuffers.fence(t.cpu.id, engine.now), this.fnLate);
  }

  /** set_pgd(). */
  protected storeEntry(t: Task, pgd: KernelPgd, index: number, ref: number): void {
    this.tables.set_pgd(t.cpu, pgd, index, ref);
  }

  protected *syncEntry(t: Task, index: number, removed: boolean): Code {
    const {entrySync, pgd_lock, fnSync, tables, kernel} = this;
    kernel.rcu.readLock(t);
    if (!pgd_lock.acquire(t, fnSync)) yield* pgd_lock.acquireSlow(t, fnSync);
    const walk = tables.checks.beginWalk();
    yield* this.walkAll(t, entrySync.begin(index, walk, removed), fnSync);
    const {bug} = entrySync;
    if (bug === null) tables.checks.endWalk(walk, index);
    if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
    kernel.rcu.readUnlock(t);
    if (bug !== null) this.die(bug);
  }

  override *walkAll(t: Task, visitor: PgdVisitor, fn: number): Code {
    yield* walkProcesses(this.kernel, t, visitor, fn);
  }
}
