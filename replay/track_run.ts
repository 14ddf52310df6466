// The program of one recorded task: its operations in order. Before each, sleep and think time as
// recorded and the wait for what the order demands; then the operation is carried out and its
// latency noted. A task whose operations run out before it exits sleeps until the end of the run.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {sys_clone} from '../kernel/fork.ts';
import type {Task} from '../kernel/task.ts';
import {type Callee, type Code, Routine, type Waitable} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import {BLOCKS, LATER, type Outcome, type QuickOutcome} from './bind/binding.ts';
import {BINDINGS, QUICK_BINDINGS} from './bind/table.ts';
import type {TraceCopy} from './copy.ts';
import {blocksOnOthers} from './dependencies.ts';
import type {ReplayObserver} from './observer.ts';
import {dieIfKilled, park} from './parked.ts';
import type {ReplayRun} from './replay_run.ts';
import type {Steering} from './steering.ts';
import {INTERRUPTED, type Track} from './tracks.ts';

/** Time that moving a task to another CPU takes (stop_one_cpu), assumption. */
const MIGRATION_NS = 1000;

/** An operation that nothing here knows. */
// biome-ignore lint/correctness/useYield: a Code that ends at once
function* skip(): Code<Outcome> {
  return 'skipped';
}

const END_OF_TRACE: Waitable = {name: 'nothing: its part of the trace is over'};

/** What a task does next. */
const NEXT_OPERATION = 0;
const FALL_ASLEEP = 1;
const ARRIVE = 2;
const LEAVE_USER = 3;
const GET_READY = 4;
const BEGIN = 5;
const CARRY_OUT = 6;
const COME_BACK = 7;
const END = 8;

/** A task and its part of the trace. */
export class TrackRun extends Routine {
  private readonly run: ReplayRun;
  private readonly observer: ReplayObserver | null;
  private readonly steering: Steering | null;
  private next = NEXT_OPERATION;
  /** Place in the track of the operation after this one. */
  private place = 0;
  /** The operation at hand, its event and kind, and the tick at which it began. */
  private op = -1;
  private event = -1;
  private kind = -1;
  private began = 0;
  /** Where its quick binding goes on. */
  private from = 0;
  private outcome: Outcome = 'done';

  constructor(
    private readonly copy: TraceCopy,
    private readonly t: Task,
    private readonly track: Track,
  ) {
    super();
    this.run = copy.run;
    this.observer = copy.observer;
    this.steering = copy.steering;
    this.watchEnd();
  }

  override resume(value: unknown): Callee | undefined {
    const {t} = this;
    const {sched} = this.run.kernel;
    let result = value;
    for (;;) {
      switch (this.next) {
        // Sleep and think time as sched.sleep and sched.userRun have them, without their code.
        case NEXT_OPERATION:
          if (this.place === this.track.ops.length) return this.sleepForEver();
          this.op = this.track.ops[this.place++];
          this.next = ARRIVE;
          if (this.recordedSleepTicks() === 0) break;
          sched.enterSleep(t);
          this.next = FALL_ASLEEP;
          if (t.cpu.settle()) return undefined;
          break;
        case FALL_ASLEEP:
          this.next = ARRIVE;
          if (sched.fallAsleep(t, this.recordedSleepTicks())) return undefined;
          break;
        case ARRIVE: {
          this.next = GET_READY;
          const thinkTicks = this.arriveAtOnce();
          if (thinkTicks === 0) break;
          if (thinkTicks < 0) return this.arrive();
          if (!sched.mayEnterUser(t)) return sched.userRun(t, thinkTicks);
          this.next = LEAVE_USER;
          if (sched.enterUser(t, thinkTicks)) return undefined;
          break;
        }
        case LEAVE_USER:
          this.next = GET_READY;
          sched.leaveUser(t);
          if (sched.taskWork?.due(t)) return sched.taskWork.run(t);
          break;
        case GET_READY:
          if (t.sigkill) dieIfKilled(t);
          this.next = BEGIN;
          if (this.steering !== null) return this.steering.before(t, this.op);
          break;
        case BEGIN:
          this.begin();
          this.next = CARRY_OUT;
          break;
        case CARRY_OUT: {
          const did = this.carryOutAtOnce();
          if (did === LATER) return undefined;
          this.next = COME_BACK;
          if (did === BLOCKS) return this.carryOut();
          result = did;
          break;
        }
        case COME_BACK:
          this.outcome = result as Outcome;
          if (this.run.contents !== null) this.run.contents.done(t, this.event);
          this.next = END;
          if (this.steering !== null) return this.steering.after(t, this.op);
          break;
        case END:
          this.end();
          this.next = NEXT_OPERATION;
      }
    }
  }

  private begin(): void {
    const {copy, t, op} = this;
    const {compiled, recorder, kernel, passesTurnEarly, files} = this.run;
    this.event = compiled.opEvent[op];
    this.kind = compiled.trace.events.kind[this.event];
    if (passesTurnEarly && (blocksOnOthers(compiled, op) || this.steering?.outlasts(op)))
      copy.gate.finish(op);
    this.began = kernel.machine.engine.now + t.cpu.pendingTicks;
    recorder.lateness.record(Math.max(0, this.began - copy.intendedTick(op)));
    files.reached(op);
    this.observer?.began(t, op);
    this.from = 0;
  }

  private end(): void {
    const {copy, t, op, outcome} = this;
    this.note(this.run.kernel.machine.engine.now + t.cpu.pendingTicks - this.began, outcome);
    copy.gate.finish(op);
  }

  private note(ticks: number, outcome: Outcome): void {
    this.run.recorder.record(this.kind, ticks, outcome);
    this.observer?.ended(this.t, this.op, ticks, outcome);
  }

  /**
   * exit does not come back, and an oops ends a task anywhere: both are noted when the task's
   * process is gone.
   */
  private watchEnd(): void {
    const process = this.t.process!;
    const {onDone} = process;
    process.onDone = () => {
      onDone?.();
      this.endTrack();
    };
  }

  /** The task does no more operations: those that it had left will never come. */
  private endTrack(): void {
    const {copy, t, track} = this;
    if (!copy.markEnded(track)) return;
    const {now} = this.run.kernel.machine.engine;
    if (this.kind === KIND.exit) this.note(Math.max(0, now - this.began), 'done');
    if (t.signal!.oomMm !== null) copy.leaveBarriers(track);
    copy.closeTrack(track);
  }

  private *sleepForEver(): Code {
    this.endTrack();
    this.t.process!.daemon = true;
    for (;;) yield* park(this.run.kernel, this.t, END_OF_TRACE);
  }

  /** Recorded sleep before the operation, where it is spent as such. */
  private recordedSleepTicks(): number {
    const {compiled, options} = this.run;
    return options.time === 'think' ? nsToTicks(compiled.opSleepNs[this.op]) : 0;
  }

  /**
   * `arrive` as plain code, where nothing has to be waited for and nobody else is due meanwhile: 0
   * when that was all, the ticks of think time when only that is left to do, else -1.
   */
  private arriveAtOnce(): number {
    const {copy, t, op} = this;
    const {compiled, options, kernel, placer} = this.run;
    if (placer.follows && placer.cpuOfOp(op, copy.index) !== t.cpu.id) return -1;
    if (options.time === 'think') {
      if (!copy.gate.isOpen(op)) return -1;
      const ticks = nsToTicks(compiled.opThinkNs[op]);
      return ticks === 0 || kernel.sched.userRunAtOnce(t, ticks) ? 0 : ticks;
    }
    return options.time === 'asap' && copy.gate.isOpen(op) ? 0 : -1;
  }

  /**
   * What comes before an operation and after its recorded sleep: think time, the recorded start, the
   * operations it depends on.
   */
  private *arrive(): Code {
    const {copy, t, op} = this;
    const {compiled, options, kernel, placer} = this.run;
    const {sched, machine} = kernel;
    if (options.time !== 'asap') {
      const thinkNs = compiled.opThinkNs[op] / options.scale;
      if (thinkNs > 0) yield* sched.userRun(t, nsToTicks(thinkNs));
    }
    if (options.time === 'timed' || options.time === 'scaled') {
      const early = copy.intendedTick(op) - machine.engine.now;
      if (early > 0) yield* sched.sleep(t, early);
    }
    if (!copy.gate.isOpen(op)) {
      if (t.cpu.settle()) yield;
      yield* copy.gate.wait(t, op);
    }
    if (placer.follows) yield* this.follow(placer.cpuOfOp(op, copy.index));
  }

  /** Moves the task to the CPU of the recording: it sleeps for a moment and wakes up there. */
  private *follow(cpu: number): Code {
    const {t} = this;
    t.pinnedCpu = cpu;
    if (t.cpu.id !== cpu) yield* this.run.kernel.sched.sleep(t, nsToTicks(MIGRATION_NS));
  }

  /** The plain half of the operation, on from where it stopped. */
  private carryOutAtOnce(): QuickOutcome {
    const {context} = this.copy;
    const quick = QUICK_BINDINGS[this.kind];
    const did = quick === undefined ? BLOCKS : quick(context, this.t, this.event, this.from);
    this.from = context.resume;
    return did;
  }

  /** The code of the operation where it may block. */
  private carryOut(): Code<Outcome> {
    const {copy, t, op, kind, event} = this;
    switch (kind) {
      case KIND.fork:
        return this.fork();
      case KIND.think:
      case KIND.sleep:
      case KIND.barrier:
        return this.passTime();
      case KIND.wait4:
        if (this.neverReturned()) return this.waitForEver();
        if (this.run.compiled.opReaped[op] === INTERRUPTED) return this.interruptedWait();
        break;
      default:
    }
    return (BINDINGS[kind] ?? skip)(copy.context, t, event, op);
  }

  private *passTime(): Code<Outcome> {
    const {copy, t, kind, event} = this;
    const {kernel, options, compiled} = this.run;
    const {events} = compiled.trace;
    if (kind === KIND.barrier) {
      yield* copy.barriers.wait(t, argNumber(events, event, 0), argNumber(events, event, 1));
    } else if (options.time !== 'asap') {
      const ticks = nsToTicks(argNumber(events, event, 0) / options.scale);
      if (kind === KIND.think) yield* kernel.sched.userRun(t, ticks);
      else yield* kernel.sched.sleep(t, ticks);
    }
    return 'done';
  }

  /** A wait4 that had not returned when the recording ended must not return here either. */
  private neverReturned(): boolean {
    const {trace, opDurationNs} = this.run.compiled;
    return trace.header.source !== 'generated' && Number.isNaN(opDurationNs[this.op]);
  }

  /** Signals are not in the trace: a wait that one ended lasts as long as it did. */
  private *interruptedWait(): Code<Outcome> {
    const {compiled, kernel, options} = this.run;
    const ticks = nsToTicks(compiled.opDurationNs[this.op]);
    if (options.time !== 'asap') yield* kernel.sched.sleep(this.t, ticks);
    return 'done';
  }

  private *waitForEver(): Code<Outcome> {
    this.run.recorder.skipped++;
    yield* this.sleepForEver();
    return 'skipped';
  }

  private *fork(): Code<Outcome> {
    const {copy, t} = this;
    const {compiled, kernel, placer} = this.run;
    const childIndex = compiled.opChild[this.op];
    if (childIndex < 0) return 'skipped';
    const track = compiled.tracks[childIndex];
    const child = yield* sys_clone(kernel, t, {
      flags: argNumber(compiled.trace.events, this.event, 1),
      childTid: copy.pidOf(track.tid),
      childTgid: copy.pidOf(track.tgid),
      comm: track.comm,
      ...(placer.follows ? {pinnedCpu: placer.cpuOf(track, copy.index)} : {}),
      program: (task) => {
        if (placer.pins) task.pinnedCpu = t.pinnedCpu;
        return new TrackRun(copy, task, track);
      },
    });
    if (child !== null) return 'done';
    copy.neverBorn(track);
    return 'failed';
  }
}
