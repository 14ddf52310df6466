// sync-at-vmalloc: Ingo Molnar's counter-proposal in the thread of the lockless series ("how about
// this solution instead"): a generation counter lets sync_global_pgds see whether the reference has
// changed at all, vmalloc() calls it every time, and vmalloc_fault goes. Nothing of it was posted
// as code. Built here on the last lockless posting, whose walk and late copy it needs.
//
// The counter is read before the walk and published after it, and the walk brings every entry that
// changed since the published generation, whatever range was asked for: so who finds the present
// generation published knows that each entry has had a whole walk since it was populated, also one
// whose populator has not come to its own sync yet. An entry that this CPU cannot see yet (it is in
// another one's store buffer) is left to its populator.

import type {Code} from '../../../../../machine/process.ts';
import type {Task} from '../../../../task.ts';
import {LocklessDesign} from './lockless.ts';

/** Eager synchronisation, a walk only when the reference changed. */
export class SyncAtVmalloc extends LocklessDesign {
  readonly name = 'sync-at-vmalloc';
  /** Generation of the reference that every PGD has; what boot populated is in every copy. */
  private syncedGeneration = this.tables.generation;

  override *sync_global_pgds(t: Task): Code {
    const {tables, fnSync} = this;
    t.cpu.charge(this.kernel.costs.walkStepTicks, fnSync);
    if (t.cpu.settle()) yield;
    let {generation} = tables;
    if (generation === this.syncedGeneration) return;
    const since = this.syncedGeneration;
    for (const index of [...tables.populated]) {
      const changedAt = tables.changedAt[index];
      if (changedAt <= since) continue;
      if (tables.reference(t.cpu, index) === 0) generation = Math.min(generation, changedAt - 1);
      else yield* this.syncEntry(t, index, false);
    }
    this.syncedGeneration = Math.max(this.syncedGeneration, generation);
  }
}
