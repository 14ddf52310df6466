// Ticket spinlocks, x86 from 2.6.25 to 4.1 (arch/x86/include/asm/spinlock.h).
//
// An xadd on the word draws a ticket; the holder's release increments `owner` in the same word with
// a plain store. All waiters poll that word, so every release takes all copies away and all waiters
// fetch the line again, one after the other; the one whose turn it is waits behind half of the
// others on average. A hand-off therefore costs time linear in the number of waiters (Boyd-Wickizer
// et al., "Non-scalable locks are dangerous", 2012). Arrivals add to it: their xadd takes the line
// from everybody too. FIFO: who draws first is served first.
//
// Order of refetches (assumption): uniformly random, drawn from the lock's own seeded stream. The
// requests reach the line's home nearly together and nothing about a ticket makes its owner's
// request faster.

import type {Cpu} from '../../machine/cpu.ts';
import type {Code} from '../../machine/process.ts';
import type {Rng} from '../../machine/rng.ts';
import type {Task} from '../task.ts';
import type {LockContext, Waiter} from './context.ts';
import {SpinLock, type SpinLockParts} from './spinlock.ts';

/** First come, first served; everybody polls one line. */
export class TicketLock extends SpinLock {
  private first: Waiter | null = null;
  private last: Waiter | null = null;
  private readonly rng: Rng;

  constructor(ctx: LockContext, parts: SpinLockParts) {
    super(ctx, parts, '_raw_spin_lock');
    this.rng = ctx.machine.rng(`ticket ${parts.name}`);
  }

  protected override hasWaiters(): boolean {
    return this.first !== null;
  }

  protected override *contend(t: Task, w: Waiter): Code {
    const {cpu} = w;
    this.line.rmw(cpu, this.ctx.engine.now);
    this.line.poll(cpu.id);
    if (this.last === null) this.first = w;
    else this.last.next = w;
    this.last = w;
    if (this.spins(w)) yield;
    this.spun(w);
    this.line.unpoll(cpu.id);
    this.owner = t;
  }

  protected override handOff(cpu: Cpu): void {
    const {ctx, line} = this;
    const {now} = ctx.engine;
    const next = this.first!;
    this.first = next.next;
    if (this.first === null) this.last = null;
    const visible = now + line.write(cpu, now);
    ctx.stored(cpu.id, visible);
    cpu.stall(ctx.topology.l1HitTicks, ctx.unlockFn);
    const waiters = line.pollerCount;
    const position = this.rng.nextInt(waiters) + 1;
    const last = line.fetchAll(visible);
    const tick = ctx.topology.serialReads
      ? visible + Math.ceil(((last - visible) * position) / waiters)
      : visible + ctx.topology.transferTicks(cpu.id, next.cpu.id, line.homeNode);
    this.grant(next, tick);
  }
}
