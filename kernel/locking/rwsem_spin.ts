// rwsem_optimistic_spin(): a writer that fails looks at the lock for as long as the owner runs, and
// at readers for 10 to 25 us, once per read phase. Spinners stand in line for the looking (osq).

import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {Spinner} from './osq_lock.ts';
import {readerSpinTicks} from './rwsem_facts.ts';
import {RwsemState} from './rwsem_state.ts';

/** An rwsem for which writers spin before they sleep. */
export abstract class RwsemSpin extends RwsemState {
  /** rwsem_optimistic_spin(). True: it has the lock. */
  protected *spin(t: Task): Code<boolean> {
    if (!this.facts.writersSpin || !this.canSpin(t)) return false;
    t.preemptCount++;
    const spinner = this.newSpinner(t);
    const taken =
      (yield* this.osq.lock(spinner, this.spinFn)) && (yield* this.spinAtHead(t, spinner));
    t.preemptCount--;
    return taken;
  }

  private *spinAtHead(t: Task, spinner: Spinner): Code<boolean> {
    let taken = false;
    let readersUntil = 0;
    for (;;) {
      if (this.isFree() && !this.handoff) {
        this.rmw(t.cpu, this.writeFn);
        this.setWriter(t);
        taken = true;
      } else t.cpu.stall(this.line.read(t.cpu, this.now), this.spinFn);
      if (t.cpu.settle()) yield;
      if (taken || !this.canSpin(t)) break;
      if (this.isFree()) {
        if (this.handoff) break;
        continue;
      }
      if (this.writer !== null) readersUntil = 0;
      else if (readersUntil === 0) readersUntil = this.now + readerSpinTicks(this.readers);
      else if (this.now >= readersUntil) {
        this.nonspinnable = true;
        break;
      }
      this.lookers.push(spinner);
      const deadline = readersUntil === 0 ? Infinity : readersUntil;
      yield* spinner.wait(this, this.writer, deadline, this.spinFn);
      this.stopLooking(spinner);
    }
    this.osq.unlock(spinner);
    return taken;
  }

  /** rwsem_can_spin_on_owner(). */
  private canSpin(t: Task): boolean {
    if (t.needResched) return false;
    if (this.writer !== null) return this.writer.se.onCpu;
    return this.readers === 0 || (this.facts.readerSpin && !this.nonspinnable);
  }
}
