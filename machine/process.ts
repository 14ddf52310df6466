// What the engine fires: processes and timers.
//
// A process is a generator. It says when it wants to go on (`advance`, `wake`, a timer) and then
// yields nothing to give way; yielding another generator calls it on the process's own frame stack,
// and its return value comes back from the yield. `yield*` is the cheaper call for code that blocks
// once, a frame for code that blocks often, a Routine for code that does nothing but block.

import type {Engine} from './engine.ts';

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
