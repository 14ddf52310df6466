// One instance of the recorded process tree, running: the program of each of its tasks.
//
// A task that exists when the trace begins is *adopted*: started before the clock of the
// measurement, as child of its recorded parent, with an address space of its own, and then held at
// the start gate. A task that the trace forks gets its program with the replayed fork. Both then do
// their operations in order: sleep and think as recorded, wait for what the order demands, carry
// out, note the latency. A task whose operations run out before it exits sleeps until the end of
// the run.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {
  CLONE_FILES,
  CLONE_FS,
  CLONE_SIGHAND,
  CLONE_THREAD,
  CLONE_VM,
} from '../kernel/clone_flags.ts';
import {sys_clone} from '../kernel/fork.ts';
import {startProcess} from '../kernel/init_task.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/engine.ts';
import {nsToTicks} from '../machine/time.ts';
import {
  type BindingContext,
  BLOCKS,
  LATER,
  NO_CHILD_YET,
  type Outcome,
  type QuickOutcome,
} from './bind/binding.ts';
import {BINDINGS, QUICK_BINDINGS} from './bind/table.ts';
import {Barriers} from './barriers.ts';
import {blocksOnOthers} from './dependencies.ts';
import {OperationGate} from './gate.ts';
import type {ReplayObserver} from './observer.ts';
import {dieIfKilled, park} from './parked.ts';
import type {ReplayRun} from './replay_run.ts';
import type {Steering} from './steering.ts';
import {INTERRUPTED, NOBODY_YET, type Track} from './tracks.ts';

/** Pids of copy n are those of the recording plus n times this; larger than any pid_max. */
export const TID_STRIDE = 2 ** 23;

/** What pthread_create asks for, as far as it matters here. */
const CLONE_THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/** Time that moving a task to another CPU takes (stop_one_cpu), assumption. */
const MIGRATION_NS = 1000;

/** An operation that nothing here knows. */
// biome-ignore lint/correctness/useYield: a Code that ends at once
function* skip(): Code<Outcome> {
  return 'skipped';
}

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
      files: run.files,
      contents: run.contents,
      resume: 0,
      pidOf: (tid) => this.pidOf(tid),
      reapedPid: (op) => this.reapedPid(op),
    };
  }

  pidOf(recordedTid: number): number {
    return recordedTid + this.index * TID_STRIDE;
  }

  /**
   * Wait edges hold in the orders that keep causes: there wait4 returns the child that it returned
   * in the recording, or none where a poll got none.
   */
  private reapedPid(op: number): number {
    const {order} = this.run.options;
    const track = this.run.compiled.opReaped[op];
    if (order === 'none' || order === 'thread') return 0;
    if (track < 0) return track === NOBODY_YET ? NO_CHILD_YET : 0;
    return this.pidOf(this.run.compiled.tracks[track].tid);
  }

  /** Only the first copy is watched: the others do the same. */
  private get observer(): ReplayObserver | null {
    return this.index === 0 ? this.run.observer : null;
  }

  /** As the observer, for the first copy only. */
  private get steering(): Steering | null {
    return this.index === 0 ? this.run.steering : null;
  }

  /** How long after the common start this copy begins. */
  shift(ticks: number): void {
    this.phaseTicks = ticks;
  }

  /** Starts the adopted processes below `parent`, each as a child of its recorded parent. */
  adoptProcesses(parent: Track | null, parentTask: Task | null): void {
    const {run} = this;
    for (const track of run.adoptedChildren(parent)) {
      const cpu = run.placer.cpuOf(track, this.index);
      const task = startProcess(run.kernel, {
        tid: this.pidOf(track.tid),
        comm: track.comm,
        program: (t) => this.adopted(t, track),
        ...(cpu < 0 ? {} : {pinnedCpu: cpu}),
        ...(parentTask === null ? {} : {parent: parentTask}),
      });
      this.adoptProcesses(track, task);
    }
  }

  private *adopted(t: Task, track: Track): Code {
    for (const thread of this.run.adoptedThreads(track)) yield* this.adoptThread(t, thread);
    yield* this.startTogether(t, track);
  }

  private *adoptThread(leader: Task, track: Track): Code {
    const cpu = this.run.placer.cpuOf(track, this.index);
    yield* sys_clone(this.run.kernel, leader, {
      flags: CLONE_THREAD_FLAGS,
      childTid: this.pidOf(track.tid),
      childTgid: this.pidOf(track.tgid),
      comm: track.comm,
      program: (thread) => {
        thread.pinnedCpu = cpu;
        return this.startTogether(thread, track);
      },
    });
  }

  private *startTogether(t: Task, track: Track): Code {
    yield* this.run.startGate.wait(t, track.ops.length > 0);
    if (!this.run.placer.pins) t.pinnedCpu = -1;
    if (this.phaseTicks > 0) yield* this.run.kernel.sched.sleep(t, this.phaseTicks);
    yield this.operations(t, track);
  }

  private *operations(t: Task, track: Track): Code {
    const {compiled, recorder, contents, passesTurnEarly, files} = this.run;
    const {observer, steering} = this;
    const {kind: kinds} = compiled.trace.events;
    const {sched, machine} = this.run.kernel;
    const {engine} = machine;
    this.watchEnd(t, track);
    const {ops} = track;
    for (let n = 0; n < ops.length; n++) {
      const op = ops[n];
      // Sleep and think time as sched.sleep and sched.userRun have them, without a generator for
      // each of the many.
      const sleepTicks = this.sleepTicks(op);
      if (sleepTicks > 0) {
        sched.enterSleep(t);
        if (t.cpu.settle()) yield;
        if (sched.fallAsleep(t, sleepTicks)) yield;
      }
      const thinkTicks = this.arriveAtOnce(t, op);
      if (thinkTicks < 0) yield* this.arrive(t, op);
      else if (thinkTicks > 0) {
        if (sched.mayEnterUser(t)) {
          if (sched.enterUser(t, thinkTicks)) yield;
          sched.leaveUser(t);
          if (sched.taskWork?.due(t)) yield* sched.taskWork.run(t);
        } else yield* sched.userRun(t, thinkTicks);
      }
      if (t.sigkill) dieIfKilled(t);
      const i = compiled.opEvent[op];
      const kind = kinds[i];
      if (steering !== null) yield* steering.before(t, op);
      if (passesTurnEarly && (blocksOnOthers(compiled, op) || steering?.outlasts(op)))
        this.gate.finish(op);
      const began = engine.now + t.cpu.pendingTicks;
      recorder.lateness.record(Math.max(0, began - this.intendedTick(op)));
      if (kind === KIND.exit) {
        this.inExit[track.index] = op;
        this.exitBegan[track.index] = began;
      }
      files.reached(op);
      observer?.began(t, op);
      const quick = QUICK_BINDINGS[kind];
      let did: QuickOutcome = quick === undefined ? BLOCKS : quick(this.context, t, i, 0);
      while (did === LATER) {
        const from = this.context.resume;
        yield;
        did = quick!(this.context, t, i, from);
      }
      const outcome = did === BLOCKS ? ((yield this.carryOut(t, op, kind, i)) as Outcome) : did;
      if (contents !== null) contents.done(t, i);
      if (steering !== null) yield* steering.after(t, op);
      const ticks = engine.now + t.cpu.pendingTicks - began;
      recorder.record(kind, ticks, outcome);
      observer?.ended(t, op, ticks, outcome);
      this.gate.finish(op);
    }
    this.endTrack(track, t);
    yield* this.sleepForEver(t);
  }

  /**
   * exit does not come back, and an oops ends a task anywhere: both are noted when the task's
   * process is gone.
   */
  private watchEnd(t: Task, track: Track): void {
    const process = t.process!;
    const {onDone} = process;
    process.onDone = () => {
      onDone?.();
      this.endTrack(track, t);
    };
  }

  /** The task does no more operations: those that it had left will never come. */
  private endTrack(track: Track, t: Task): void {
    if (this.ended[track.index] !== 0) return;
    this.ended[track.index] = 1;
    const {recorder, kernel} = this.run;
    const op = this.inExit[track.index];
    if (op >= 0) {
      const ticks = Math.max(0, kernel.machine.engine.now - this.exitBegan[track.index]);
      recorder.record(KIND.exit, ticks, 'done');
      this.observer?.ended(t, op, ticks, 'done');
    }
    if (t.signal!.oomMm !== null) this.leaveBarriers(track);
    this.closeTrack(track);
  }

  /**
   * What it had left is over for those who wait for it; children that it never had will not come
   * either.
   */
  private closeTrack(track: Track): void {
    const {compiled, kernel} = this.run;
    for (const left of track.ops) {
      const child = this.gate.isOver(left) ? -1 : compiled.opChild[left];
      this.gate.finish(left);
      if (child < 0) continue;
      const born = kernel.taskList.find(this.pidOf(compiled.tracks[child].tid)) !== null;
      if (!born) this.neverBorn(compiled.tracks[child]);
    }
    if (track.ops.length > 0 && compiled.opCount > 0) this.run.trackEnded();
  }

  /** The fork that would have made it failed, or never came. */
  private neverBorn(track: Track): void {
    if (this.ended[track.index] !== 0) return;
    this.ended[track.index] = 1;
    this.closeTrack(track);
  }

  /** Barriers that a killed task had ahead of it: the others do not wait for it. */
  private leaveBarriers(track: Track): void {
    const {events} = this.run.compiled.trace;
    const left = new Map<number, number>();
    for (const op of track.ops) {
      const i = this.run.compiled.opEvent[op];
      if (events.kind[i] !== KIND.barrier || this.gate.isOver(op)) continue;
      left.set(argNumber(events, i, 0), argNumber(events, i, 1));
    }
    for (const [id, parties] of left) this.barriers.leave(id, parties);
  }

  private *sleepForEver(t: Task): Code {
    t.process!.daemon = true;
    for (;;) yield* park(this.run.kernel, t, END_OF_TRACE);
  }

  /** When an operation would start if everything took as long as in the recording. */
  private intendedTick(op: number): number {
    const {compiled, options, startTick} = this.run;
    return startTick + this.phaseTicks + nsToTicks(compiled.opStartNs[op] / options.scale);
  }

  /** Recorded sleep before an operation, where it is spent as such. */
  private sleepTicks(op: number): number {
    const {compiled, options} = this.run;
    return options.time === 'think' ? nsToTicks(compiled.opSleepNs[op]) : 0;
  }

  /**
   * `arrive` as plain code, where nothing has to be waited for and nobody else is due meanwhile: 0
   * when that was all, the ticks of think time when only that is left to do, else -1.
   */
  private arriveAtOnce(t: Task, op: number): number {
    const {compiled, options, kernel, placer} = this.run;
    if (placer.follows && placer.cpuOfOp(op, this.index) !== t.cpu.id) return -1;
    if (options.time === 'think') {
      if (!this.gate.isOpen(op)) return -1;
      const ticks = nsToTicks(compiled.opThinkNs[op]);
      return ticks === 0 || kernel.sched.userRunAtOnce(t, ticks) ? 0 : ticks;
    }
    return options.time === 'asap' && this.gate.isOpen(op) ? 0 : -1;
  }

  /**
   * What comes before an operation and after its recorded sleep: think time, the recorded start, the
   * operations it depends on.
   */
  private *arrive(t: Task, op: number): Code {
    const {compiled, options, kernel} = this.run;
    const {sched, machine} = kernel;
    if (options.time !== 'asap') {
      const thinkNs = compiled.opThinkNs[op] / options.scale;
      if (thinkNs > 0) yield* sched.userRun(t, nsToTicks(thinkNs));
    }
    if (options.time === 'timed' || options.time === 'scaled') {
      const early = this.intendedTick(op) - machine.engine.now;
      if (early > 0) yield* sched.sleep(t, early);
    }
    if (!this.gate.isOpen(op)) {
      if (t.cpu.settle()) yield;
      yield* this.gate.wait(t, op);
    }
    if (this.run.placer.follows) yield* this.follow(t, this.run.placer.cpuOfOp(op, this.index));
  }

  /** Moves the task to the CPU of the recording: it sleeps for a moment and wakes up there. */
  private *follow(t: Task, cpu: number): Code {
    t.pinnedCpu = cpu;
    if (t.cpu.id !== cpu) yield* this.run.kernel.sched.sleep(t, nsToTicks(MIGRATION_NS));
  }

  /** The code of one operation, for a frame of its own: many block often. */
  private carryOut(t: Task, op: number, kind: number, i: number): Code<Outcome> {
    switch (kind) {
      case KIND.fork:
        return this.fork(t, op, i);
      case KIND.think:
      case KIND.sleep:
      case KIND.barrier:
        return this.passTime(t, kind, i);
      case KIND.wait4:
        if (this.neverReturned(op)) return this.waitForEver(t, op);
        if (this.run.compiled.opReaped[op] === INTERRUPTED) return this.interruptedWait(t, op);
        break;
      default:
    }
    return (BINDINGS[kind] ?? skip)(this.context, t, i, op);
  }

  private *passTime(t: Task, kind: number, i: number): Code<Outcome> {
    const {kernel, options, compiled} = this.run;
    const {events} = compiled.trace;
    if (kind === KIND.barrier) {
      yield* this.barriers.wait(t, argNumber(events, i, 0), argNumber(events, i, 1));
    } else if (options.time !== 'asap') {
      const ticks = nsToTicks(argNumber(events, i, 0) / options.scale);
      if (kind === KIND.think) yield* kernel.sched.userRun(t, ticks);
      else yield* kernel.sched.sleep(t, ticks);
    }
    return 'done';
  }

  /** A wait4 that had not returned when the recording ended must not return here either. */
  private neverReturned(op: number): boolean {
    const {compiled} = this.run;
    return compiled.trace.header.source !== 'generated' && Number.isNaN(compiled.opDurationNs[op]);
  }

  /** Signals are not in the trace: a wait that one ended lasts as long as it did. */
  private *interruptedWait(t: Task, op: number): Code<Outcome> {
    const {compiled, kernel, options} = this.run;
    if (options.time !== 'asap') yield* kernel.sched.sleep(t, nsToTicks(compiled.opDurationNs[op]));
    return 'done';
  }

  private *waitForEver(t: Task, op: number): Code<Outcome> {
    this.run.recorder.skipped++;
    this.endTrack(this.run.compiled.tracks[this.run.compiled.opTrack[op]], t);
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
      ...(placer.follows ? {pinnedCpu: placer.cpuOf(track, this.index)} : {}),
      program: (task) => {
        if (placer.pins) task.pinnedCpu = t.pinnedCpu;
        return this.operations(task, track);
      },
    });
    if (child !== null) return 'done';
    this.neverBorn(track);
    return 'failed';
  }
}
