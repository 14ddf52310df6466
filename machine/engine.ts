// The event engine: virtual time and the events in it. What they fire is in process.ts.
//
// The rule that makes simulated code fast: `advance(ticks)` moves the clock in place and returns
// false whenever no other event is due first, so an uncontended path runs as plain code; it returns
// true, with the process's resumption already queued, when somebody else goes first, and then the
// caller must yield:
//     if (engine.advance(ticks)) yield;
//
// Invariants: time never goes back; a process has at most one pending event (the newest wins,
// `pendingKey`); everything that fires goes into the digest. The run stops with a Deadlock when
// nothing is pending while processes still wait.

import {assert, bug} from './assert.ts';
import {Digest} from './digest.ts';
import {EventQueue} from './event_queue.ts';
import {BoundReached, Deadlock} from './panics.ts';
import {PRIORITY} from './priorities.ts';
import {type Code, type Gate, Process, type Schedulable} from './process.ts';
import {ticksToNs} from './time.ts';

const KEY_SPAN = 2 ** 44;
const SWEEP_AT = 1024;

/** Limits of a run; hitting one is an error that names its flag. */
export interface Bounds {
  maxEvents: number;
  maxTicks: number;
  maxQueue: number;
}

const NO_BOUNDS: Bounds = {maxEvents: 2 ** 52, maxTicks: 2 ** 52, maxQueue: 2 ** 24};

export class Engine {
  now = 0;
  /** Events fired so far; advances made in place are not events. */
  events = 0;
  readonly digest = new Digest();
  /** The process that is running at this moment, null between events. */
  current: Process | null = null;
  /** Processes that have not finished. */
  live = 0;
  private readonly queue = new EventQueue();
  private readonly table: (Schedulable | null)[] = [];
  private readonly freeIds: number[] = [];
  private sequence = 1;
  private stopping = false;
  /** Nobody advances in place beyond this tick. */
  private limit = Infinity;
  /** Nobody else is due before this tick, as far as was looked; at most one past `limit`. */
  quietBefore = 0;
  /** Events in the queue that were replaced or taken back: they are dropped when they come up. */
  private stale = 0;

  constructor(readonly bounds: Bounds = {...NO_BOUNDS}) {}

  /** Gives `target` an identity so that events can name it. */
  register(target: Schedulable): void {
    assert(target.id < 0, 'registered twice');
    target.id = this.freeIds.pop() ?? this.table.length;
    this.table[target.id] = target;
  }

  /** Forgets `target`; a pending event of it will not fire. */
  unregister(target: Schedulable): void {
    this.table[target.id] = null;
    this.freeIds.push(target.id);
    target.id = -1;
    this.cancel(target);
  }

  /** Events that will still fire. */
  get pendingEvents(): number {
    return this.queue.size - this.stale;
  }

  /** Queues `target` to fire at `time`, replacing the event it may have pending. */
  schedule(target: Schedulable, time: number, priority: number = PRIORITY.cpu): void {
    if (time < this.now) bug(`event at ${time} is in the past, now is ${this.now}`);
    const key = priority * KEY_SPAN + this.sequence++;
    const replaces = target.pendingKey !== 0;
    target.pendingKey = key;
    if (replaces) this.dropStale();
    if (time === this.now && priority === PRIORITY.cpu) this.queue.pushNow(time, key, target.id);
    else this.queue.push(time, key, target.id);
    if (time < this.quietBefore) this.quietBefore = time;
  }

  /** Takes back the pending event of `target`. */
  cancel(target: Schedulable): void {
    if (target.pendingKey === 0) return;
    target.pendingKey = 0;
    this.dropStale();
  }

  /** One more queued event is dead; when they are the most of the queue, they are swept out. */
  private dropStale(): void {
    if (++this.stale < SWEEP_AT || this.stale * 2 < this.queue.size) return;
    const {table} = this;
    this.queue.sweep((id, key) => table[id] !== null && table[id].pendingKey === key);
    this.stale = 0;
  }

  /**
   * Lets `ticks` of simulated time pass for the running process. False: done in place. True: the
   * resumption is queued and the caller must yield.
   */
  advance(ticks: number): boolean {
    const time = this.now + ticks;
    if (time >= this.quietBefore) return this.advancePast(time);
    this.now = time;
    return false;
  }

  /**
   * advance() when somebody else may be due first; apart, so that advance() is inlined everywhere.
   */
  private advancePast(time: number): boolean {
    if (this.isQuietBefore(time)) {
      this.now = time;
      return false;
    }
    this.schedule(this.current!, time);
    return true;
  }

  /** Finds out anew until when nobody else is due. */
  private isQuietBefore(time: number): boolean {
    this.quietBefore = Math.min(this.queue.firstTime(), this.limit + 1);
    return time < this.quietBefore;
  }

  /** True when `advance(ticks)` would move the clock in place. */
  canAdvance(ticks: number): boolean {
    const time = this.now + ticks;
    return time < this.quietBefore || this.isQuietBefore(time);
  }

  /** Makes a process that does nothing until it is woken. */
  create(name: string, code: Code<unknown>, gate: Gate | null = null): Process {
    this.live++;
    return new Process(this, name, code, gate);
  }

  /** Makes a process and starts it at the present time. */
  spawn(name: string, code: Code<unknown>, gate: Gate | null = null): Process {
    const process = this.create(name, code, gate);
    this.schedule(process, this.now);
    return process;
  }

  /** Makes a parked process go on after `delayTicks`. */
  wake(process: Process, delayTicks = 0): void {
    process.waitingFor = null;
    this.schedule(process, this.now + delayTicks);
  }

  /** Ends a process from within or from outside; its code is never resumed. */
  retire(process: Process): void {
    assert(!process.done, 'a process ends twice');
    process.done = true;
    this.live--;
    this.unregister(process);
    process.dropFrames();
    process.onDone?.();
  }

  /** Ends `run` after the present event. */
  stop(): void {
    this.stopping = true;
  }

  /**
   * Fires events until none is left, `until` is passed or `stop` is called. Returns the time
   * reached.
   */
  run(until: number = Infinity): number {
    this.stopping = false;
    this.limit = Math.min(until, this.bounds.maxTicks);
    this.quietBefore = 0;
    const {queue, table, bounds} = this;
    while (!this.stopping) {
      const id = queue.pop();
      if (id < 0) {
        this.checkNobodyWaits();
        break;
      }
      if (queue.poppedTime > until) {
        queue.push(queue.poppedTime, queue.poppedKey, id);
        break;
      }
      const target = table[id];
      if (target === null || target.pendingKey !== queue.poppedKey) {
        this.stale--;
        continue;
      }
      target.pendingKey = 0;
      this.beginEvent(queue.poppedTime, id, queue.size, bounds);
      target.fire();
    }
    if (until !== Infinity && !this.stopping && until > this.now) this.now = until;
    return this.now;
  }

  private beginEvent(time: number, id: number, queued: number, bounds: Bounds): void {
    if (time < this.now) bug(`time goes backwards from ${this.now} to ${time}`);
    this.now = time;
    this.events++;
    this.digest.mixPair(time, id);
    if (this.events > bounds.maxEvents) {
      throw new BoundReached('events', bounds.maxEvents, '--max-events');
    }
    if (time > bounds.maxTicks) {
      throw new BoundReached('simulated time (ns)', ticksToNs(bounds.maxTicks), '--max-time');
    }
    if (queued > bounds.maxQueue) {
      throw new BoundReached('queued events', bounds.maxQueue, '--max-queue');
    }
  }

  private checkNobodyWaits(): void {
    const graph = this.waitGraph();
    if (graph.length > 0) throw new Deadlock(ticksToNs(this.now), graph);
  }

  /**
   * One line per waiting process: who, for what, held by whom. Daemons wait by nature and are left
   * out.
   */
  waitGraph(limit = 40): string[] {
    const lines: string[] = [];
    for (const target of this.table) {
      if (!(target instanceof Process) || target.daemon) continue;
      if (lines.length === limit) return [...lines, '... and more'];
      const held = target.waitingFor?.holder?.() ?? null;
      const by = held === null ? '' : `, held by ${held.name}`;
      lines.push(`${target.name} waits for ${target.waitingFor?.name ?? 'nothing named'}${by}`);
    }
    return lines;
  }
}
