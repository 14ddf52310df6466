// Barriers of a generated trace: all parties arrive before any leaves. Arrivals sleep; the last one
// wakes them.

import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/process.ts';
import {park} from './parked.ts';

class Barrier implements Waitable {
  readonly name: string;
  readonly arrived: Task[] = [];
  generation = 0;
  /** Parties that have died: nobody waits for them. */
  absent = 0;
  constructor(id: number) {
    this.name = `barrier ${id}`;
  }
}

/** The barriers of one copy, by number. */
export class Barriers {
  private readonly byId = new Map<number, Barrier>();
  constructor(private readonly kernel: Kernel) {}

  *wait(t: Task, id: number, parties: number): Code {
    const barrier = this.of(id);
    if (barrier.arrived.length + barrier.absent + 1 >= parties) {
      this.open(barrier);
      return;
    }
    const {generation} = barrier;
    barrier.arrived.push(t);
    try {
      while (barrier.generation === generation) yield* park(this.kernel, t, barrier);
    } finally {
      // Killed here: it has left, and `leave` says so.
      const at = barrier.arrived.indexOf(t);
      if (at >= 0) barrier.arrived.splice(at, 1);
    }
  }

  /** A party died before it came here. */
  leave(id: number, parties: number): void {
    const barrier = this.of(id);
    barrier.absent++;
    if (barrier.arrived.length > 0 && barrier.arrived.length + barrier.absent >= parties) {
      this.open(barrier);
    }
  }

  private open(barrier: Barrier): void {
    barrier.generation++;
    for (const task of barrier.arrived.splice(0)) this.kernel.sched.wake(task);
  }

  private of(id: number): Barrier {
    let barrier = this.byId.get(id);
    if (barrier === undefined) {
      barrier = new Barrier(id);
      this.byId.set(id, barrier);
    }
    return barrier;
  }
}
