// One instance of the recorded process tree, running: the program of each of its tasks.
//
// A task that exists when the trace begins is *adopted*: made by a real clone before the clock of the measurement starts,
// as child of its recorded parent, then held at the start gate. A task that the trace forks gets its program with the
// replayed fork. Both then do their operations in order: sleep and think as recorded, wait for what the order demands,
// carry out, note the latency. A task whose operations run out before it exits sleeps until the end of the run.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {CLONE_FS, CLONE_THREAD, CLONE_VM} from '../kernel/clone_flags.ts';
import {sys_clone} from '../kernel/fork.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/engine.ts';
import {nsToTicks} from '../machine/time.ts';
import type {BindingContext, Outcome} from './bind/binding.ts';
import {BINDINGS} from './bind/table.ts';
import {Barriers} from './barriers.ts';
import {blocksOnOthers} from './dependencies.ts';
import {OperationGate} from './gate.ts';
import type {ReplayRun} from './replay_run.ts';
import type {Track} from './tracks.ts';

/** Pids of copy n are those of the recording plus n times this; larger than any pid_max. */
export const TID_STRIDE = 2 ** 23;

const END_OF_TRACE: Waitable = {name: 'nothing: its part of the trace is over'};

/** One copy of the trace. */
export class TraceCopy {
  private readonly gate: OperationGate;
  private readonly barriers: Barriers;
  private readonly context: BindingContext;
  private readonly ended: Uint8Array;
  /** Exit operation that a track is in, -1 before; and when it began. */
  private readonly inExit: Int32Array;
  private readonly exitBegan: Float64Array;
  private phaseTicks = 0;

  constructor(
    private readonly run: ReplayRun,
    private readonly index: number,
  ) {
    const {compiled, kernel, dependencies} = run;
    this.gate = new OperationGate(kernel, dependencies, compiled.opCount);
    this.barriers = new Barriers(kernel);
    this.ended = new Uint8Array(compiled.tracks.length);
    this.inExit = new Int32Array(compiled.tracks.length).fill(-1);
    this.exitBegan = new Float64Array(compiled.tracks.length);
    this.context = {
      kernel,
      events: compiled.trace.events,
      strings: compiled.trace.strings,
      copy: index,
      names: new Map(),
      pidOf: (tid) => this.pidOf(tid),
    };
  }

  pidOf(recordedTid: number): number {
    return recordedTid + this.index * TID_STRIDE;
  }

  /** How long after the common start this copy begins. */
  shift(ticks: number): void {
    this.phaseTicks = ticks;
  }

  /** Makes the adopted task of `track` as a child (or thread) of `maker`. */
  *adopt(maker: Task, track: Track): Code {
    const {run} = this;
    const thread = track.tgid !== track.tid && this.pidOf(track.tgid) === maker.tgid;
    const cpu = run.placer.cpuOf(track, this.index);
    yield* sys_clone(run.kernel, maker, {
      flags: thread ? CLONE_VM | CLONE_FS | CLONE_THREAD : 0,
      childTid: this.pidOf(track.tid),
      childTgid: this.pidOf(track.tgid),
      comm: track.comm,
      program: (child) => {
        child.pinnedCpu = cpu;
        return this.adopted(child, track);
      },
    });
  }

  private *adopted(t: Task, track: Track): Code {
    for (const child of this.run.adoptedChildren(track)) yield* this.adopt(t, child);
    yield* this.run.startGate.wait(t, track.ops.length > 0);
    if (!this.run.placer.pins) t.pinnedCpu = -1;
    if (this.phaseTicks > 0) yield* this.run.kernel.sched.sleep(t, this.phaseTicks);
    yield* this.operations(t, track);
  }

  private *operations(t: Task, track: Track): Code {
    const {events} = this.run.compiled.trace;
    this.watchEnd(t, track);
    for (const op of track.ops) {
      yield* this.arrive(t, op);
      const i = this.run.compiled.opEvent[op];
      const kind = events.kind[i];
      if (this.run.passesTurnEarly && blocksOnOthers(this.run.compiled, op)) this.gate.finish(op);
      const began = this.run.kernel.machine.engine.now;
      if (kind === KIND.exit) {
        this.inExit[track.index] = op;
        this.exitBegan[track.index] = began;
      }
      const outcome = yield* this.carryOut(t, op, kind, i);
      this.run.recorder.record(kind, this.run.kernel.machine.engine.now - began, outcome);
      this.gate.finish(op);
    }
    this.endTrack(track);
    yield* this.sleepForEver(t);
  }

  /** exit does not come back, and an oops ends a task anywhere: both are noted when the task's process is gone. */
  private watchEnd(t: Task, track: Track): void {
    const process = t.process!;
    const {onDone} = process;
    process.onDone = () => {
      onDone?.();
      this.endTrack(track);
    };
  }

  /** The task does no more operations: those that it had left will never come. */
  private endTrack(track: Track): void {
    if (this.ended[track.index] !== 0) return;
    this.ended[track.index] = 1;
    const {compiled, recorder, kernel} = this.run;
    const op = this.inExit[track.index];
    if (op >= 0) {
      recorder.record(KIND.exit, kernel.machine.engine.now - this.exitBegan[track.index], 'done');
    }
    for (const left of track.ops) this.gate.finish(left);
    if (track.ops.length > 0 && compiled.opCount > 0) this.run.trackEnded();
  }

  private *sleepForEver(t: Task): Code {
    t.process!.daemon = true;
    for (;;) yield* this.run.kernel.sched.block(t, END_OF_TRACE);
  }

  /** Everything before an operation: recorded sleep and think time, the recorded start, the operations it depends on. */
  private *arrive(t: Task, op: number): Code {
    const {compiled, options, kernel, startTick} = this.run;
    const {sched, machine} = kernel;
    const intended = startTick + this.phaseTicks + nsToTicks(compiled.opStartNs[op] / options.scale);
    if (options.time === 'think') {
      const sleepNs = compiled.opSleepNs[op];
      if (sleepNs > 0) yield* sched.sleep(t, nsToTicks(sleepNs));
    }
    if (options.time !== 'asap') {
      const thinkNs = compiled.opThinkNs[op] / options.scale;
      if (thinkNs > 0) yield* sched.userRun(t, nsToTicks(thinkNs));
    }
    if (options.time === 'timed' || options.time === 'scaled') {
      const early = intended - machine.engine.now;
      if (early > 0) yield* sched.sleep(t, early);
    }
    if (!this.gate.isOpen(op)) yield* this.gate.wait(t, op);
    if (t.cpu.settle()) yield;
    this.run.recorder.lateness.record(Math.max(0, machine.engine.now - intended));
  }

  private *carryOut(t: Task, op: number, kind: number, i: number): Code<Outcome> {
    const {kernel, options, compiled} = this.run;
    const {events} = compiled.trace;
    switch (kind) {
      case KIND.fork:
        return yield* this.fork(t, op, i);
      case KIND.think:
        if (options.time !== 'asap') {
          yield* kernel.sched.userRun(t, nsToTicks(argNumber(events, i, 0) / options.scale));
        }
        return 'done';
      case KIND.sleep:
        if (options.time !== 'asap') {
          yield* kernel.sched.sleep(t, nsToTicks(argNumber(events, i, 0) / options.scale));
        }
        return 'done';
      case KIND.barrier:
        yield* this.barriers.wait(t, argNumber(events, i, 0), argNumber(events, i, 1));
        return 'done';
      case KIND.wait4:
        if (this.neverReturned(op)) return yield* this.waitForEver(t, op);
        break;
      default:
    }
    const binding = BINDINGS[kind];
    return binding === undefined ? 'skipped' : yield* binding(this.context, t, i);
  }

  /** A wait4 that had not returned when the recording ended must not return here either. */
  private neverReturned(op: number): boolean {
    const {compiled} = this.run;
    return compiled.trace.header.source !== 'generated' && Number.isNaN(compiled.opDurationNs[op]);
  }

  private *waitForEver(t: Task, op: number): Code<Outcome> {
    this.run.recorder.skipped++;
    this.endTrack(this.run.compiled.tracks[this.run.compiled.opTrack[op]]);
    yield* this.sleepForEver(t);
    return 'skipped';
  }

  private *fork(t: Task, op: number, i: number): Code<Outcome> {
    const {compiled, kernel, placer} = this.run;
    const childIndex = compiled.opChild[op];
    if (childIndex < 0) return 'skipped';
    const track = compiled.tracks[childIndex];
    const child = yield* sys_clone(kernel, t, {
      flags: argNumber(compiled.trace.events, i, 1),
      childTid: this.pidOf(track.tid),
      childTgid: this.pidOf(track.tgid),
      comm: track.comm,
      program: (task) => {
        if (placer.pins) task.pinnedCpu = t.pinnedCpu;
        return this.operations(task, track);
      },
    });
    return child === null ? 'failed' : 'done';
  }
}
