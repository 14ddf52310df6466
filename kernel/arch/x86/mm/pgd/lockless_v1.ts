// lockless-v1: the RFC of 2015-06-11, 12 patches, with what the review found in it:
// - sync_global_pgds dereferences p->mm->pgd before it tests p->mm (patch 02; Waiman Long, Oleg
//   Nesterov). Patch 08 of the same posting moves the test; the model stays at what was reviewed,
//   so that the oops shows.
// - pgd = mm->pgd is never indexed by address (Nesterov): the walk checks and writes user entry 0.
// - no rcu_read_lock in sync_global_pgds, no task_lock anywhere: the mm may exit under the walk.
// - arch_pgd_init_late orders its copy with smp_wmb() only: on x86 that is no instruction at all.
// - it stores with WRITE_ONCE, not set_pgd, which a Xen PV guest cannot do on a pinned page table
//   (Boris Ostrovsky).
// - every thread is visited, not every mm (Linus Torvalds).
// The 32-bit walks (patches 08 and 09) have the RCU section, the NULL test and the index.

import type {Code} from '../../../../../machine/process.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {Task} from '../../../../task.ts';
import {reportRawStore} from '../../xen/mmu.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {LocklessDesign} from './lockless.ts';
import {UnindexedSync} from './sync_entry.ts';
import {checkRcuHeld, walkThreadsUnlocked} from './walk_threads.ts';

/** The first posting of Molnar's series. */
export class LocklessV1 extends LocklessDesign {
  readonly name = 'lockless-v1';
  private readonly unindexed: UnindexedSync;

  constructor(kernel: Kernel) {
    super(kernel);
    this.unindexed = new UnindexedSync(this.tables);
  }

  /** smp_wmb(): stores are in order on x86 anyway; nothing waits for them to be visible. */
  protected override barrier(_t: Task): void {}

  /** WRITE_ONCE(*pgd_dst, *pgd_src). */
  protected override storeEntry(t: Task, pgd: KernelPgd, index: number, ref: number): void {
    if (pgd.pinned && reportRawStore(this.kernel, pgd, index)) return;
    super.storeEntry(t, pgd, index, ref);
  }

  protected override *syncEntry(t: Task, index: number, removed: boolean): Code {
    const {layout, checks} = this.tables;
    if (!layout.is64) {
      yield* super.syncEntry(t, index, removed);
      return;
    }
    const {pgd_lock, fnSync, kernel} = this;
    checkRcuHeld(kernel, t, 'sync_global_pgds');
    if (!pgd_lock.acquire(t, fnSync)) yield* pgd_lock.acquireSlow(t, fnSync);
    const walk = checks.beginWalk();
    const sync = this.unindexed.begin(index, walk, removed);
    const oops = yield* walkThreadsUnlocked(kernel, t, sync, true, fnSync);
    this.unindexed.report(kernel, index);
    const bug = oops ?? sync.bug;
    if (bug === null) checks.endWalk(walk, index);
    if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
    if (bug !== null) this.die(bug);
  }

  override *walkAll(t: Task, visitor: PgdVisitor, fn: number): Code {
    yield* walkThreadsUnlocked(this.kernel, t, visitor, false, fn);
  }
}
