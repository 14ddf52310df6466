// Inter-processor interrupts: send to a set of CPUs, wait until every one has run the handler
// (smp_call_function_many).
//
// Two forms with the same meaning. `event` is the reference: an event per arrival, handlers run in
// order of time. `closed` computes every arrival at once and books the handler's time as debt of
// the target: ten times faster, exact unless a target switches tasks or disables interrupts within
// the microsecond in flight. A target with interrupts off is always handled by events. A test holds
// the two against each other.

import type {Cpu, InterruptHandler} from './cpu.ts';
import type {CpuMask} from './cpumask.ts';
import type {Machine} from './machine.ts';
import {PRIORITY} from './priorities.ts';
import {type Code, type Process, Timer, type Waitable} from './process.ts';

export type IpiMode = 'event' | 'closed';

/** One call on many CPUs that somebody waits for. */
class Call implements Waitable {
  readonly name = 'acknowledgement of an IPI';
  outstanding = 0;
  lastAckTick = 0;
  waiter: Process | null = null;

  constructor(readonly machine: Machine) {}

  /** One target, for which nobody waits by events, is done at `tick`. */
  acknowledged(tick: number): void {
    if (tick > this.lastAckTick) this.lastAckTick = tick;
  }

  /** The handler is done on one target at `tick`. */
  acknowledge(tick: number): void {
    this.outstanding--;
    this.acknowledged(tick);
    if (this.outstanding === 0 && this.waiter !== null) {
      this.machine.engine.wake(this.waiter, this.lastAckTick - this.machine.engine.now);
    }
  }
}

/** The interrupt fabric of a machine. */
export class Ipi {
  sent = 0;
  constructor(
    readonly machine: Machine,
    public mode: IpiMode = 'closed',
  ) {}

  /**
   * Runs `handler` on every CPU of `targets` but `from`, and waits for all of them. Returns how
   * many there were.
   */
  *callMany(from: Cpu, targets: CpuMask, handler: InterruptHandler, fn: number): Code<number> {
    if (from.settle()) yield;
    const call = new Call(this.machine);
    const order = this.sendAll(call, from, targets, handler);
    if (order === 0) return 0;
    this.sent += order;
    from.charge(order * this.machine.topology.ipiSendTicks, fn);
    if (from.settle()) yield;
    const {engine, profile} = this.machine;
    const began = engine.now;
    if (call.outstanding > 0) {
      call.waiter = engine.current;
      engine.current!.park(call);
      yield;
    } else if (call.lastAckTick > engine.now && engine.advance(call.lastAckTick - engine.now)) {
      yield;
    }
    profile.add(fn, engine.now - began);
    return order;
  }

  private sendAll(call: Call, from: Cpu, targets: CpuMask, handler: InterruptHandler): number {
    const {cpus, engine, topology} = this.machine;
    const closed = this.mode === 'closed';
    let arrival = engine.now + topology.ipiDeliverTicks;
    let sent = 0;
    for (let w = 0; w < targets.words.length; w++) {
      for (let word = targets.words[w]; word !== 0; word &= word - 1) {
        const target = cpus[w * 32 + 31 - Math.clz32(word & -word)];
        if (target === from) continue;
        sent++;
        arrival += topology.ipiSendTicks;
        if (closed && target.irqDisabledDepth === 0) {
          call.acknowledged(arrival + target.interruptNow(handler));
        } else this.sendEvent(call, target, arrival, handler);
      }
    }
    return sent;
  }

  private sendEvent(call: Call, target: Cpu, arrival: number, handler: InterruptHandler): void {
    const {engine, topology} = this.machine;
    call.outstanding++;
    const timer = new Timer(engine, () => {
      engine.unregister(timer);
      target.interrupt((cpu) => {
        const bodyTicks = handler(cpu);
        call.acknowledge(engine.now + topology.ipiHandlerEntryTicks + bodyTicks);
        return bodyTicks;
      });
    });
    engine.schedule(timer, arrival, PRIORITY.interrupt);
  }
}
