// The fair class in essence: nice 0 only, no groups. Up to 6.5 CFS: least vruntime first, sleepers
// credited with half a latency period, a new task debited one slice, slices that shrink with the
// number of tasks, wake-up preemption beyond the wake-up granularity. From 6.6 EEVDF: one base
// slice, places by lag, and RUN_TO_PARITY: who was picked runs its slice out, as long as it is
// eligible (not ahead of the queue's average: pick_eevdf looks at that first). With equal weights
// and slices the earliest deadline is taken to be the least vruntime, so both share one queue
// order.
//
// From 6.12 DELAY_DEQUEUE: a task that goes to sleep ahead of the average stays on the queue until
// it is picked and found asleep. Woken before, it is where it was, and so runs before tasks that
// got ahead of it meanwhile: a vfork parent before its child. Here it leaves the queue at once, and
// `placeWoken` finds out whether Linux would have picked it (a new pick since, and an average that
// passed it). Not modelled: that it counts in the average while it sleeps, and that it wakes on the
// CPU it slept on without a choice.

import type {Task} from '../task.ts';
import type {RunQueue} from './runqueue.ts';
import type {FairTunables} from './tunables.ts';

/** leftAtPick of a task that went to sleep behind the average, or under a kernel without delay. */
const NOT_DELAYED = -1;

/** vruntime arithmetic for one set of tunables. */
export class FairClass {
  constructor(readonly tunables: FairTunables) {}

  /** update_curr(): brings the running task's vruntime up to `now`. */
  updateCurrent(rq: RunQueue, now: number): void {
    const t = rq.current;
    if (t === null) return;
    const ran = now - t.se.execStart;
    if (ran <= 0) return;
    t.se.execStart = now;
    t.se.sumExecTicks += ran;
    t.vruntimeTicks += ran;
    rq.updateMinVruntime();
  }

  /** sched_slice(): ticks that a task may run while `running` tasks want the CPU. */
  sliceTicks(running: number): number {
    const {eevdf, latencyTicks, latencyTasks, minGranularityTicks} = this.tunables;
    if (eevdf) return minGranularityTicks;
    if (running > latencyTasks) return minGranularityTicks;
    return Math.floor(latencyTicks / Math.max(1, running));
  }

  /** The task that runs leaves `rq` to sleep. */
  leave(rq: RunQueue, t: Task): void {
    if (!this.tunables.eevdf) return;
    const limit = 2 * this.tunables.minGranularityTicks;
    const lag = rq.averageVruntime() - t.vruntimeTicks;
    t.se.lagTicks = Math.max(-limit, Math.min(limit, lag));
    t.se.leftAtPick = this.tunables.delayDequeue && lag < 0 ? rq.picks : NOT_DELAYED;
  }

  /** place_entity() for a new task. */
  placeNew(rq: RunQueue, t: Task): void {
    if (this.tunables.eevdf) t.vruntimeTicks = rq.averageVruntime();
    else t.vruntimeTicks = rq.minVruntime + this.sliceTicks(rq.running + 1);
  }

  /** place_entity() for a task that slept on `from` and wakes on `rq`. */
  placeWoken(rq: RunQueue, from: RunQueue, t: Task): void {
    if (this.tunables.eevdf) {
      const average = rq.averageVruntime();
      const {leftAtPick} = t.se;
      if (leftAtPick === NOT_DELAYED || rq !== from) {
        t.vruntimeTicks = average - t.se.lagTicks;
      } else if (rq.picks > leftAtPick + 1) {
        t.vruntimeTicks = Math.max(t.vruntimeTicks, average);
      }
      return;
    }
    if (rq !== from) t.vruntimeTicks += rq.minVruntime - from.minVruntime;
    const credit = Math.floor(this.tunables.latencyTicks / 2);
    t.vruntimeTicks = Math.max(t.vruntimeTicks, rq.minVruntime - credit);
  }

  /** A queued task moves between queues and keeps its distance to the others. */
  migrate(rq: RunQueue, from: RunQueue, t: Task): void {
    const base = this.tunables.eevdf ? rq.averageVruntime() : rq.minVruntime;
    const old = this.tunables.eevdf ? from.averageVruntime() : from.minVruntime;
    t.vruntimeTicks += base - old;
  }

  /** check_preempt_wakeup(): true when `woken` should run instead of the current task. */
  preempts(rq: RunQueue, woken: Task): boolean {
    const t = rq.current!;
    const lead = t.vruntimeTicks - woken.vruntimeTicks;
    if (this.tunables.eevdf) {
      const ran = t.se.sumExecTicks - t.se.prevSumExecTicks;
      if (lead <= 0 || rq.first() !== woken) return false;
      return t.vruntimeTicks > rq.averageVruntime() || ran >= this.sliceTicks(rq.running);
    }
    return lead > this.tunables.wakeupGranularityTicks;
  }

  /** check_preempt_tick(): true when the current task has had its share. */
  sliceOver(rq: RunQueue): boolean {
    const t = rq.current!;
    const first = rq.first();
    if (first === null) return false;
    const slice = this.sliceTicks(rq.running);
    const ran = t.se.sumExecTicks - t.se.prevSumExecTicks;
    if (ran > slice) return true;
    if (this.tunables.eevdf || ran < this.tunables.minGranularityTicks) return false;
    return t.vruntimeTicks - first.vruntimeTicks > slice;
  }
}
