// Barriers of a generated trace: all parties arrive before any leaves. Arrivals sleep; the last one wakes them.

import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/engine.ts';

class Barrier implements Waitable {
  readonly name: string;
  readonly arrived: Task[] = [];
  generation = 0;
  constructor(id: number) {
    this.name = `barrier ${id}`;
  }
}

/** The barriers of one copy, by number. */
export class Barriers {
  private readonly byId = new Map<number, Barrier>();
  constructor(private readonly kernel: Kernel) {}

  *wait(t: Task, id: number, parties: number): Code {
    let barrier = this.byId.get(id);
    if (barrier === undefined) {
      barrier = new Barrier(id);
      this.byId.set(id, barrier);
    }
    if (barrier.arrived.length + 1 >= parties) {
      barrier.generation++;
      for (const task of barrier.arrived.splice(0)) this.kernel.sched.wake(task);
      return;
    }
    const {generation} = barrier;
    barrier.arrived.push(t);
    while (barrier.generation === generation) yield* this.kernel.sched.block(t, barrier);
  }
}
