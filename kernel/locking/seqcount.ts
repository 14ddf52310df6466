// seqcount_t: readers look at a number before and after and try again when it was odd or has
// changed; writers, who are serialised by a lock of their own, make it odd, write and make it even.
//
// The number is a cell behind the store buffers: on x86 smp_wmb is only a compiler barrier, and it
// is the FIFO order of a writer's stores that keeps number and data in step for everyone else. The
// line's transfers are charged as for any data.

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code, Process, Waitable} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {LockContext} from './context.ts';

/** A sequence counter. */
export class Seqcount implements Waitable {
  readonly name: string;
  private readonly ctx: LockContext;
  private readonly line: CacheLine;
  private readonly cells = new Uint32Array(1);
  private readonly waiters: {process: Process; task: Task}[] = [];
  private writer: Task | null = null;

  constructor(ctx: LockContext, name: string, line: CacheLine) {
    this.ctx = ctx;
    this.name = name;
    this.line = line;
  }

  /**
   * read_seqcount_begin by a caller that has settled. Returns the number, or -1: go on with
   * readBeginSlow.
   */
  readBegin(t: Task, fn: number): number {
    const seq = this.look(t, fn);
    return (seq & 1) === 0 ? seq : -1;
  }

  /** Spins while a write is under way. Returns the number, which is even. */
  *readBeginSlow(t: Task, fn: number): Code<number> {
    const {engine, machine} = this.ctx;
    for (;;) {
      if (t.cpu.settle()) yield;
      const seq = this.look(t, fn);
      if ((seq & 1) === 0) return seq;
      if (t.cpu.settle()) yield;
      if (this.writer === null) continue;
      const began = engine.now;
      const process = engine.current!;
      this.waiters.push({process, task: t});
      this.line.poll(t.cpu.id);
      process.park(this);
      yield;
      this.line.unpoll(t.cpu.id);
      machine.profile.add(fn, engine.now - began);
    }
  }

  /**
   * read_seqcount_retry by a caller that has settled: true when what was read since `seq` may be
   * torn.
   */
  readRetry(t: Task, seq: number, fn: number): boolean {
    return this.look(t, fn) !== seq;
  }

  /** write_seqcount_begin by a caller that has settled and holds the writers' lock. */
  writeBegin(t: Task, fn: number): void {
    this.writer = t;
    t.preemptCount++;
    this.bump(t, fn);
  }

  /** write_seqcount_end by a caller that has settled. */
  writeEnd(t: Task, fn: number): void {
    this.bump(t, fn);
    this.writer = null;
    t.preemptCount--;
    const {engine, storeBuffers} = this.ctx;
    const visible = Math.max(engine.now, storeBuffers.drainedBy(t.cpu.id));
    for (const waiter of this.waiters) {
      const seen = visible + this.line.fetch(waiter.task.cpu, visible);
      engine.wake(waiter.process, seen - engine.now);
    }
    this.waiters.length = 0;
  }

  holder(): Process | null {
    return this.writer === null ? null : this.writer.process;
  }

  private look(t: Task, fn: number): number {
    const {now} = this.ctx.engine;
    t.cpu.stall(this.line.read(t.cpu, now), fn);
    return this.ctx.storeBuffers.load(t.cpu.id, this.cells, 0, now);
  }

  private bump(t: Task, fn: number): void {
    const {engine, storeBuffers, topology} = this.ctx;
    const {cpu} = t;
    const seq = storeBuffers.load(cpu.id, this.cells, 0, engine.now);
    this.line.write(cpu, engine.now);
    cpu.stall(topology.l1HitTicks, fn);
    storeBuffers.store(cpu.id, this.cells, 0, seq + 1, engine.now);
  }
}
