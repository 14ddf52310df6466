// lockless-v2: the posting of 2015-06-13. After the review of the first one: the NULL test comes
// first and p->mm is used under task_lock(p); arch_pgd_init_late copies with set_pgd what is not
// pgd_none. What stayed:
// - explicit RCU was taken out in the belief that spin_lock implies it;
// - smp_wmb() in arch_pgd_init_late: the fork path still has the store-buffering race. The exec
//   path has not, because both sides now hold task_lock of the same task;
// - every thread is visited, and mm->pgd is still not indexed by address.

import type {Code} from '../../../../../machine/process.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import {LocklessDesign} from './lockless.ts';
import {UnindexedSync} from './sync_entry.ts';
import {checkRcuHeld, walkThreadsLocked} from './walk_threads.ts';

/** The second posting of Molnar's series. */
export class LocklessV2 extends LocklessDesign {
  readonly name = 'lockless-v2';
  private readonly unindexed: UnindexedSync;

  constructor(kernel: Kernel) {
    super(kernel);
    this.unindexed = new UnindexedSync(this.tables);
  }

  /** smp_wmb(): nothing on x86. */
  protected override barrier(_t: Task): void {}

  protected override *syncEntry(t: Task, index: number, removed: boolean): Code {
    const {pgd_lock, fnSync, kernel} = this;
    const {layout, checks} = this.tables;
    checkRcuHeld(kernel, t, layout.is64 ? 'sync_global_pgds' : 'vmalloc_sync_all');
    if (!pgd_lock.acquire(t, fnSync)) yield* pgd_lock.acquireSlow(t, fnSync);
    const walk = checks.beginWalk();
    const sync = (layout.is64 ? this.unindexed : this.entrySync).begin(index, walk, removed);
    yield* walkThreadsLocked(kernel, t, sync, fnSync);
    this.unindexed.report(kernel, index);
    const {bug} = sync;
    if (bug === null) checks.endWalk(walk, index);
    if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
    if (bug !== null) this.die(bug);
  }

  override *walkAll(t: Task, visitor: PgdVisitor, fn: number): Code {
    yield* walkThreadsLocked(this.kernel, t, visitor, fn);
  }
}
