// The event engine: virtual time, processes, and what they may wait for.
//
// A process is a generator. It says when it wants to go on (`advance`, `wake`, a timer) and then
// yields nothing to give way; yielding another generator calls it on the process's own frame stack,
// and its return value comes back from the yield. `yield*` is the cheaper call for code that blocks
// once, a frame for code that blocks often, a Routine for code that does nothing but block.
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
import {ticksToNs} from './time.ts';

const KEY_SPAN = 2 ** 44;
const SWEEP_AT = 1024;

/** Simulated code: yields nothing to wait for its queued resumption, or a Callee to call it. */
export type Code<T = void> = Generator<Callee | undefined, T, unknown>;

/** What simulated code can call by yielding it. */
export type Callee = Code<unknown> | Routine;

/**
 * Simulated code as an object: what a generator has in variables it has in fields. To resume it is
 * a plain call, 15 ns on the host against 45 for a generator with many variables. It never
 * returns: it ends with its process, or with an exception.
 */
export abstract class Routine {
  /**
   * Goes on, with what the code that it called last returned. Its result stands for a yield:
   * nothing to wait for the queued resumption, or whom to call.
   */
  abstract resume(value: unknown): Callee | undefined;
}

type Step = IteratorResult<Callee | undefined, unknown>;

/**
 * next() of all generators. Each generator function makes objects of a hidden class of its own, so
 * looking it up in the object costs more than the call.
 */
const resume: (this: Code<unknown>, value: unknown) => Step = Object.getPrototypeOf(function* () {})
  .prototype.next;

/** Something that the engine can fire: a process or a timer. */
export abstract class Schedulable {
  /** Index in the engine's table; -1 while not in it. */
  id = -1;
  /** Key of the one event that may fire this; 0 when none is pending. */
  pendingKey = 0;
  abstract fire(): void;
}

/** What a process waits for, as the wait graph prints it. */
export interface Waitable {
  readonly name: string;
  /** Who would have to act for the wait to end, when that is known. */
  holder?(): Process | null;
}

/**
 * What stands between a process's event and its going on: a CPU that was interrupted, or nothing.
 */
export interface Gate {
  /** Ticks by which the process is late; reading it clears it. */
  takeStolenTicks(): number;
}

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

/** A thread of simulated control. */
export class Process extends Schedulable {
  /** What it is parked on, null while it runs or has an event pending. */
  waitingFor: Waitable | null = null;
  /** A process that may wait for ever without that being a deadlock. */
  daemon = false;
  done = false;
  /** Called once when the code has ended. */
  onDone: (() => void) | null = null;
  /** Asked when an exception leaves the code: true if only this process ends, else the run ends. */
  onCrash: ((error: unknown) => boolean) | null = null;
  private code: Code<unknown>;
  /** What runs instead of `code`, null when `code` does. */
  private routine: Routine | null = null;
  private callers: Callee[] | null = null;

  constructor(
    readonly engine: Engine,
    readonly name: string,
    code: Code<unknown>,
    public gate: Gate | null,
  ) {
    super();
    this.code = code;
    engine.register(this);
  }

  /** Says what the process waits for; the caller then yields and is resumed by `Engine.wake`. */
  park(on: Waitable): void {
    this.waitingFor = on;
  }

  override fire(): void {
    if (this.gate !== null) {
      const stolen = this.gate.takeStolenTicks();
      if (stolen > 0) {
        this.engine.schedule(this, this.engine.now + stolen);
        return;
      }
    }
    this.engine.current = this;
    this.step();
    this.engine.current = null;
  }

  /** For a process that has ended: others may name it long after, as a lock's last holder. */
  dropFrames(): void {
    this.callers = null;
    this.routine = null;
  }

  private step(): void {
    let value: unknown;
    for (;;) {
      let result: Step;
      try {
        if (this.routine !== null) {
          const callee = this.routine.resume(value);
          if (callee === undefined) return;
          this.call(callee);
          value = undefined;
          continue;
        }
        result = resume.call(this.code, value);
      } catch (error) {
        const recovered = this.unwind(error);
        if (recovered === null) return;
        result = recovered;
      }
      if (result.done === true) {
        const caller = this.callers?.pop();
        if (caller === undefined) {
          this.engine.retire(this);
          return;
        }
        value = result.value;
        this.enter(caller);
      } else {
        if (result.value === undefined) return;
        this.call(result.value);
        value = undefined;
      }
    }
  }

  private call(callee: Callee): void {
    this.callers ??= [];
    this.callers.push(this.routine ?? this.code);
    this.enter(callee);
  }

  private enter(callee: Callee): void {
    if (callee instanceof Routine) this.routine = callee;
    else {
      this.routine = null;
      this.code = callee;
    }
  }

  /**
   * Hands an exception to the callers, innermost first; null when it ended the process. Routines
   * catch nothing.
   */
  private unwind(error: unknown): Step | null {
    for (;;) {
      const caller = this.callers?.pop();
      if (caller === undefined) {
        if (this.onCrash?.(error) !== true) throw error;
        if (!this.done) this.engine.retire(this);
        return null;
      }
      if (caller instanceof Routine) continue;
      this.enter(caller);
      try {
        return caller.throw(error);
      } catch (next) {
        error = next;
      }
    }
  }
}

/** Calls a function at a time that can be moved or taken back. */
export class Timer extends Schedulable {
  constructor(
    readonly engine: Engine,
    readonly action: () => void,
  ) {
    super();
    engine.register(this);
  }

  override fire(): void {
    this.action();
  }
}
