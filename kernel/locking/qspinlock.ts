// qspinlock, Linux 4.2 and later (kernel/locking/qspinlock.c as in 5.2, x86 without paravirt).
//
// The word holds a locked byte, a pending bit and the tail of an MCS queue. The fast path is a
// cmpxchg of a free word. The second CPU sets the pending bit and spins on the word itself; the
// third and later queue in per-CPU MCS nodes and spin there; the head of the queue spins on the
// word until both locked and pending are clear.
//
// Where the time goes under contention, every step computed from the line's state:
// - An arrival costs the word's line two transfers, the cmpxchg that fails and then the bts of the
//   pending bit or the xchg of the tail. They take the line from the owner, whose unlock must then
//   fetch it back.
// - Unlock is a byte store. With a spinner on the word the line is shared, so the store waits for
//   the spinner's copy to be invalidated; then the spinner fetches the line. A hand-off is these
//   two transactions.
// - The new owner that came from the queue sets the locked byte and writes `locked` in its
//   successor's node, whose line the successor polls: two transactions again, then the successor
//   fetches the word. This chain runs beside the critical section; when that is shorter than the
//   chain, the chain is the cost of a hand-off.
// - Linking to the predecessor's node disturbs the predecessor's own polling line.
// Stores leave a CPU in order but ask for their lines at once (both x86 vendors prefetch
// ownership), so the set of the locked byte and the write into the node overlap.

import type {Cpu} from '../../machine/cpu.ts';
import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {LockContext, Waiter} from './context.ts';
import {SpinLock, type SpinLockParts} from './spinlock.ts';

const LOCKED = 1;
const PENDING = 2;
const TAIL = 4;

/** _Q_PENDING_LOOPS of x86: how often an arrival looks again while the pending CPU takes over. */
const PENDING_LOOPS = 512;
/** Ticks of one such look: a load that hits and PAUSE. Assumption: 10 cycles, as before Skylake. */
const PENDING_LOOP_TICKS = 40;

/** The queued spinlock. */
export class QSpinLock extends SpinLock {
  /** Head of the queue, who spins on the word once `headTick` has come, and its last. */
  protected head: Waiter | null = null;
  protected tail: Waiter | null = null;
  private pending: Waiter | null = null;
  /** Arrivals that wait for a hand-over from pending to locked. */
  private onlookers: Waiter[] = [];

  constructor(ctx: LockContext, parts: SpinLockParts) {
    super(ctx, parts, 'queued_spin_lock_slowpath');
  }

  protected override hasWaiters(): boolean {
    return this.pending !== null || this.tail !== null;
  }

  private word(): number {
    return (
      (this.owner === null ? 0 : LOCKED) |
      (this.pending === null ? 0 : PENDING) |
      (this.tail === null ? 0 : TAIL)
    );
  }

  protected override *contend(t: Task, w: Waiter): Code {
    const {cpu} = w;
    const {ctx, line} = this;
    this.syncHead();
    let seen = this.word();
    cpu.stall(line.rmw(cpu, ctx.engine.now), this.slowFn);
    if ((seen & ~LOCKED) !== 0) cpu.stall(ctx.claimNode(cpu.id), this.slowFn);
    if (cpu.settle()) yield;
    if (seen === PENDING) seen = yield* this.awaitHandover(w);
    if ((seen & ~LOCKED) === 0) {
      if (this.setPending(w)) {
        if (this.spins(w)) yield;
        this.spun(w);
        this.takeAsPending(t, w);
        return;
      }
      if (cpu.settle()) yield;
    }
    if (this.tryAgain(cpu)) {
      this.owner = t;
      return;
    }
    this.enqueue(w);
    do {
      if (this.spins(w)) yield;
      this.spun(w);
      if (!w.polls) {
        this.readAsHead(w);
        if (cpu.settle()) yield;
      }
    } while (this.owner !== null || this.pending !== null);
    this.owner = t;
    this.leaveQueue(w);
  }

  /**
   * The word was locked=0, pending=1 only: look again until it changes, a bounded number of times.
   */
  private *awaitHandover(w: Waiter): Code<number> {
    const {engine} = this.ctx;
    if (this.word() !== PENDING) return this.word();
    const process = engine.current!;
    this.onlookers.push(w);
    this.line.poll(w.cpu.id);
    engine.schedule(process, engine.now + PENDING_LOOPS * PENDING_LOOP_TICKS);
    w.process = process;
    const began = engine.now;
    yield;
    w.process = null;
    w.grantTick = -1;
    this.ctx.machine.profile.add(this.slowFn, engine.now - began);
    const at = this.onlookers.indexOf(w);
    if (at >= 0) this.onlookers.splice(at, 1);
    this.line.unpoll(w.cpu.id);
    return this.word();
  }

  /** The bts of the pending bit. False: somebody else is ahead, queue. */
  private setPending(w: Waiter): boolean {
    const {cpu} = w;
    const {ctx, line} = this;
    this.syncHead();
    const old = this.word();
    const ticks = line.rmw(cpu, ctx.engine.now);
    if ((old & ~LOCKED) !== 0) {
      cpu.stall(ticks + ctx.claimNode(cpu.id), this.slowFn);
      return false;
    }
    this.pending = w;
    this.idle = false;
    w.polls = true;
    if (old === 0) w.grantTick = ctx.engine.now + ticks;
    else line.poll(cpu.id);
    return true;
  }

  /** clear_pending_set_locked. */
  private takeAsPending(t: Task, w: Waiter): void {
    this.line.unpoll(w.cpu.id);
    this.pending = null;
    this.owner = t;
    this.storeWord(w.cpu);
  }

  /** queued_spin_trylock once the node is set up: the lock may have come free meanwhile. */
  private tryAgain(cpu: Cpu): boolean {
    if (this.word() !== 0) return false;
    cpu.stall(this.line.rmw(cpu, this.ctx.engine.now), this.slowFn);
    return true;
  }

  /** The xchg of the tail. */
  private enqueue(w: Waiter): void {
    this.syncHead();
    const {now} = this.ctx.engine;
    const done = now + this.line.rmw(w.cpu, now);
    const prev = this.tail;
    this.tail = w;
    this.idle = false;
    if (prev === null) this.becomeHead(w, done);
    else this.link(prev, w, done);
  }

  /** WRITE_ONCE(prev->next, node): a store into the line that `prev` polls. */
  private link(prev: Waiter, w: Waiter, from: number): void {
    const start = Math.max(from, prev.nodeBusyTick);
    const written = start + this.ctx.writeNode(prev.cpu.id, w.cpu.id);
    prev.next = w;
    w.linkedTick = written + this.ctx.nodeTicks(w.cpu.id, prev.cpu.id, prev.cpu.id);
    prev.nodeBusyTick = w.linkedTick;
    w.nodeBusyTick = from;
  }

  protected becomeHead(w: Waiter, tick: number): void {
    this.head = w;
    w.headTick = tick;
  }

  /**
   * The head has read the word at its headTick; done when somebody looks, before the word's next
   * operation.
   */
  private syncHead(): void {
    const {head, line} = this;
    if (head === null || head.polls || head.headTick > this.ctx.engine.now) return;
    head.polls = true;
    line.read(head.cpu, head.headTick);
    line.poll(head.cpu.id);
  }

  /** The head arrives at the word after a release. */
  private readAsHead(w: Waiter): void {
    w.polls = true;
    w.cpu.stall(this.line.read(w.cpu, this.ctx.engine.now), this.slowFn);
    this.line.poll(w.cpu.id);
  }

  /** The head takes the lock; its successor, if any, becomes the head. */
  private leaveQueue(w: Waiter): void {
    const {cpu} = w;
    const {ctx, line} = this;
    const {now} = ctx.engine;
    line.unpoll(cpu.id);
    if (this.tail === w) {
      const ticks = line.rmw(cpu, now);
      cpu.stall(ticks, this.slowFn);
      this.endQueue(w, now + ticks);
      return;
    }
    const visible = this.storeWord(cpu);
    this.passQueue(w, visible);
  }

  /** The cmpxchg that drops the tail: the queue ended with `w`, the new owner. */
  protected endQueue(_w: Waiter, _tick: number): void {
    this.head = null;
    this.tail = null;
  }

  /** arch_mcs_spin_unlock_contended. */
  protected passQueue(w: Waiter, visible: number): void {
    this.passTo(w, w.next!, visible);
  }

  /**
   * Writes `locked` in the node of `next`: after the store of the word, and not before its link is
   * there.
   */
  protected passTo(w: Waiter, next: Waiter, visible: number): void {
    const {ctx} = this;
    const {cpu} = w;
    const issued = ctx.engine.now + cpu.pendingTicks;
    if (next.linkedTick > issued) cpu.stall(next.linkedTick - issued, this.slowFn);
    const start = Math.max(ctx.engine.now + cpu.pendingTicks, next.nodeBusyTick);
    const written = Math.max(start + ctx.writeNode(next.cpu.id, cpu.id), visible);
    ctx.stored(cpu.id, written);
    this.becomeHead(next, written + ctx.nodeTicks(cpu.id, next.cpu.id, next.cpu.id));
  }

  /**
   * The owner's store into the word: nobody waits for it but the onlookers. Returns when it is
   * visible.
   */
  private storeWord(cpu: Cpu): number {
    const {ctx, line} = this;
    const {now} = ctx.engine;
    const visible = now + line.write(cpu, now);
    ctx.stored(cpu.id, visible);
    cpu.stall(ctx.topology.l1HitTicks, this.slowFn);
    for (const onlooker of this.onlookers) {
      this.grant(onlooker, visible + line.fetch(onlooker.cpu, visible));
    }
    this.onlookers.length = 0;
    return visible;
  }

  protected override handOff(cpu: Cpu): void {
    const {ctx, line, pending} = this;
    const {now} = ctx.engine;
    this.syncHead();
    const visible = now + line.write(cpu, now);
    ctx.stored(cpu.id, visible);
    cpu.stall(ctx.topology.l1HitTicks, ctx.unlockFn);
    if (pending !== null) {
      this.grant(pending, visible + line.fetch(pending.cpu, visible));
      return;
    }
    const head = this.head!;
    if (head.polls) this.grant(head, visible + line.fetch(head.cpu, visible));
    else this.grant(head, head.headTick);
  }
}
