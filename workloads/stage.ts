// A stage on which the tasks of a generated workload act. Each task is an Actor with a script (a
// generator function); a step of the script appends one operation at the actor's own clock and
// moves that clock on by the operation's nominal duration. The stage always resumes the actor that
// is earliest, so events come out in order of time without being gathered first: memory grows with
// the tasks alive, not with the length of the trace.
//
// Times are nominal: each actor advances as if it had a CPU to itself and met no lock. What
// contention does to a workload is for the replay to find out. A script yields after every
// operation; yielding an actor waits for its exit, yielding a Gate waits for the other parties.

import {KIND} from '../formats/kinds.ts';
import type {TraceWriter} from '../formats/writer.ts';
import {NOMINAL_NS} from './nominal.ts';

/** What a script may wait for; undefined is a plain step. */
export type Step = Actor | Gate | undefined;
/** A task's script. */
export type Script = (self: Actor) => Generator<Step, void, void>;

/** How a task came to be. */
export interface ActorInit {
  readonly comm: string;
  readonly cpu: number;
  readonly parentTid?: number;
  /** Thread group to join; a new one when absent. */
  readonly tgid?: number;
}

/** All parties arrive before any leaves. */
export interface Gate {
  readonly id: number;
  readonly parties: number;
  readonly waiting: Actor[];
}

/** clone flags as the C library passes them. */
export const CLONE = Object.freeze({
  /** fork(3): CHILD_SETTID | CHILD_CLEARTID | SIGCHLD. */
  fork: 0x01200011,
  /** vfork(3): VM | VFORK | SIGCHLD. */
  vfork: 0x00004111,
  /**
   * pthread_create(3): VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
   * CHILD_CLEARTID.
   */
  thread: 0x003d0f00,
});

/** First tid that a stage gives out; below it are the kernel's own threads. */
const FIRST_TID = 1000;
/** Parent of every task that existed before the trace: init. */
const INIT_TID = 1;

/** One task of the workload. */
export class Actor {
  nowNs = 0;
  done = false;
  readonly tid: number;
  readonly tgid: number;
  readonly comm: string;
  readonly cpu: number;
  private readonly stage: Stage;
  private readonly waiters: Actor[] = [];

  constructor(stage: Stage, tid: number, init: ActorInit) {
    this.stage = stage;
    this.tid = tid;
    this.tgid = init.tgid ?? tid;
    this.comm = init.comm;
    this.cpu = init.cpu;
  }

  /** Appends one operation, then moves this task's clock by `durationNs` (a whole number >= 0). */
  op(kind: number, durationNs: number, ...args: readonly (number | bigint)[]): undefined {
    this.stage.writer.append(kind, this.nowNs, this.tid, this.cpu, ...args);
    this.nowNs += durationNs;
  }

  /** Index of a string in the trace. */
  intern(text: string): number {
    return this.stage.writer.intern(text);
  }

  /** User-mode computation; nothing is written for 0 ns. */
  think(ns: number): undefined {
    if (ns > 0) this.op(KIND.think, ns, ns);
  }

  /** Off the CPU; nothing is written for 0 ns. */
  sleep(ns: number): undefined {
    if (ns > 0) this.op(KIND.sleep, ns, ns);
  }

  /** Pins this task to its own CPU. */
  pin(): undefined {
    this.op(KIND.sched_setaffinity, NOMINAL_NS.syscall, this.cpu);
  }

  /**
   * clone(2): the child starts when the call returns. `CLONE.thread` makes it a thread of this
   * group.
   */
  fork(script: Script, durationNs: number, flags: number = CLONE.fork, cpu = this.cpu): Actor {
    const thread = flags === CLONE.thread;
    const child = this.stage.create({
      comm: this.comm,
      cpu,
      parentTid: this.tid,
      tgid: thread ? this.tgid : undefined,
    });
    this.op(KIND.fork, durationNs, child.tid, flags, child.tgid);
    child.nowNs = this.nowNs;
    this.stage.start(child, script);
    return child;
  }

  /** wait4(child): yield the result, the script goes on when the child has exited. */
  wait(child: Actor): Actor {
    this.op(KIND.wait4, NOMINAL_NS.wait4, child.tid, 0);
    return child;
  }

  /** Yield the result: the script goes on when all parties have arrived. */
  arrive(gate: Gate): Gate {
    this.op(KIND.barrier, 0, gate.id, gate.parties);
    return gate;
  }

  /** Last operation of a task. `group` says that the whole thread group ends. */
  exit(group = true): undefined {
    this.op(KIND.exit, NOMINAL_NS.exit, group ? 1 : 0);
  }

  /** For the stage: resume `waiter` when this task is done. */
  notify(waiter: Actor): void {
    this.waiters.push(waiter);
  }

  /** For the stage: this task's script has ended. */
  finish(): readonly Actor[] {
    this.done = true;
    return this.waiters;
  }
}

/** Runs the scripts of a workload and writes what they do, in order of time. */
export class Stage {
  readonly writer: TraceWriter;
  private nextTid = FIRST_TID;
  private readonly scripts = new Map<Actor, Generator<Step, void, void>>();
  private readonly heap: Actor[] = [];
  private nextGate = 1;

  constructor(writer: TraceWriter) {
    this.writer = writer;
  }

  /** A new task in the task table, without a fork operation: it exists when the trace begins. */
  create(init: ActorInit): Actor {
    const actor = new Actor(this, this.nextTid++, init);
    this.writer.task(actor.tid, actor.tgid, init.parentTid ?? INIT_TID, init.comm);
    return actor;
  }

  /** A task that exists when the trace begins and acts in it. */
  adopt(init: ActorInit, script: Script): Actor {
    const actor = this.create(init);
    this.start(actor, script);
    return actor;
  }

  /** A meeting point; ids are unique in the trace. */
  gate(parties: number): Gate {
    return {id: this.nextGate++, parties, waiting: []};
  }

  /** Puts an actor on the stage. */
  start(actor: Actor, script: Script): void {
    this.scripts.set(actor, script(actor));
    this.push(actor);
  }

  /**
   * Runs every script to its end. Throws RangeError when some wait for ever: a mistake in the
   * workload.
   */
  run(): void {
    for (let actor = this.pop(); actor !== undefined; actor = this.pop()) this.step(actor);
    if (this.scripts.size === 0) return;
    const stuck = [...this.scripts.keys()].map((actor) => actor.tid);
    throw new RangeError(`the scripts of tids ${stuck.slice(0, 8).join(', ')} wait for ever`);
  }

  private step(actor: Actor): void {
    const script = this.scripts.get(actor);
    if (script === undefined) throw new RangeError(`tid ${actor.tid} has no script`);
    const next = script.next();
    if (next.done) {
      this.scripts.delete(actor);
      for (const waiter of actor.finish()) this.resume(waiter, actor.nowNs);
      return;
    }
    const awaited = next.value;
    if (awaited instanceof Actor) {
      if (awaited.done) this.resume(actor, awaited.nowNs);
      else awaited.notify(actor);
    } else if (awaited !== undefined) {
      this.meet(actor, awaited);
    } else {
      this.push(actor);
    }
  }

  private meet(actor: Actor, gate: Gate): void {
    gate.waiting.push(actor);
    if (gate.waiting.length < gate.parties) return;
    for (const waiter of gate.waiting.splice(0)) this.resume(waiter, actor.nowNs);
  }

  private resume(actor: Actor, atNs: number): void {
    actor.nowNs = Math.max(actor.nowNs, atNs);
    this.push(actor);
  }

  /** Binary heap by (time, tid). */
  private push(actor: Actor): void {
    const {heap} = this;
    let at = heap.length;
    heap.push(actor);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!earlier(actor, heap[above])) break;
      heap[at] = heap[above];
      at = above;
    }
    heap[at] = actor;
  }

  private pop(): Actor | undefined {
    const {heap} = this;
    const top = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return last;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && earlier(heap[below + 1], heap[below])) below++;
      if (!earlier(heap[below], last)) break;
      heap[at] = heap[below];
      at = below;
    }
    heap[at] = last;
    return top;
  }
}

function earlier(a: Actor, b: Actor): boolean {
  return a.nowNs < b.nowNs || (a.nowNs === b.nowNs && a.tid < b.tid);
}
