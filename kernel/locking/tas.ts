// Test-and-test-and-set, the x86 spinlock before 2.6.25: a locked decrement; when it fails, poll
// the word until it is positive, and try again.
//
// After a release every spinner fetches the line (one after the other), sees the lock free and
// tries its own locked decrement. Those come in the order of the fetches: the first wins, the
// others fail, take the line from the new holder one by one all the same, and then all fetch it
// again to poll. A hand-off keeps the line busy for three transfers per waiter, the holder's unlock
// included among those who queue for it. Newcomers may barge in. Nothing is fair.
//
// The storm of the losers is computed in closed form; only the winner runs. Winner (assumption):
// the CPU whose request arrives first, each taking half to one and a half times its transfer from
// the releaser, uniformly, drawn from the lock's seeded stream. So near CPUs win more, far ones now
// and then.

import type {Cpu} from '../../machine/cpu.ts';
import type {Code} from '../../machine/process.ts';
import type {Rng} from '../../machine/rng.ts';
import type {Task} from '../task.ts';
import type {LockContext, Waiter} from './context.ts';
import {SpinLock, type SpinLockParts} from './spinlock.ts';

/** Whoever gets the line first has the lock. */
export class TasLock extends SpinLock {
  private readonly waiters: Waiter[] = [];
  private readonly rng: Rng;

  constructor(ctx: LockContext, parts: SpinLockParts) {
    super(ctx, parts, '_raw_spin_lock');
    this.rng = ctx.machine.rng(`tas ${parts.name}`);
  }

  protected override hasWaiters(): boolean {
    return this.waiters.length > 0;
  }

  protected override *contend(t: Task, w: Waiter): Code {
    const {cpu} = w;
    const {line, ctx} = this;
    line.rmw(cpu, ctx.engine.now);
    line.poll(cpu.id);
    this.waiters.push(w);
    do {
      if (this.spins(w)) yield;
      this.spun(w);
      const ticks = line.rmw(cpu, ctx.engine.now);
      if (this.owner === null) {
        this.owner = t;
        cpu.stall(ticks, this.slowFn);
      }
    } while (this.owner !== t);
    const at = this.waiters.indexOf(w);
    this.waiters[at] = this.waiters[this.waiters.length - 1];
    this.waiters.pop();
    line.unpoll(cpu.id);
    this.losersTry();
  }

  /**
   * The others saw the lock free too: each takes the line for a decrement that fails, then fetches
   * it again.
   */
  private losersTry(): void {
    const {line} = this;
    const before = line.busyUntil;
    const done = line.fetchAll(before, true);
    if (done > 0) line.busyUntil = done + (done - before);
  }

  protected override handOff(cpu: Cpu): void {
    const {ctx, line} = this;
    const {now} = ctx.engine;
    const visible = now + line.write(cpu, now);
    ctx.stored(cpu.id, visible);
    cpu.stall(ctx.topology.l1HitTicks, ctx.unlockFn);
    this.idle = true;
    const winner = this.firstToArrive(cpu.id);
    this.grant(winner, visible + line.fetch(winner.cpu, visible));
  }

  private firstToArrive(from: number): Waiter {
    const {topology} = this.ctx;
    let winner = this.waiters[0];
    let earliest = Infinity;
    for (const waiter of this.waiters) {
      const ticks = topology.transferTicks(from, waiter.cpu.id, this.line.homeNode);
      const arrival = ticks * (0.5 + this.rng.nextFloat());
      if (arrival >= earliest) continue;
      earliest = arrival;
      winner = waiter;
    }
    return winner;
  }
}
