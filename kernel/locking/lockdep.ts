// lockdep: proves from one run that another order of the same steps can deadlock.
// (kernel/locking/lockdep.c, semantics of 5.x, restated.)
//
// Nodes are lock classes, not locks; a class has eight subclasses for annotated nesting. Acquiring
// B with H held adds the edges h -> B for all h in H; the first edge that closes a cycle is
// reported with its chain, as is taking a class that is held already, and a sleeping lock under a
// spinlock ("invalid wait context"). A trylock cannot block, so it adds no edge to itself; a
// recursive read (rwlock) adds none either, and may recurse. Pseudo locks (fs_reclaim, the notifier
// map) are classes that are only ever "acquired" here. As in the kernel, everything stops after the
// first report.
//
// Interrupt usage (irq-safe against irq-unsafe) is not followed: simulated handlers take no locks.
// Cost: on an acquisition with locks held, one set lookup per held lock; a search only when an edge
// is new.

import type {Machine} from '../../machine/machine.ts';
import type {Checks} from '../checks.ts';
import type {Task} from '../task.ts';

/** How a lock is taken, where it is not simply exclusive. */
export interface Acquisition {
  readonly trylock?: boolean;
  /** A read that may be nested in another of the same class. */
  readonly recursiveRead?: boolean;
  /** Nesting annotation, 0 to 7; SINGLE_DEPTH_NESTING is 1. */
  readonly subclass?: number;
  /** A lock whose holder may sleep. */
  readonly sleeping?: boolean;
  /** A class without a lock: never a spinlock section. */
  readonly pseudo?: boolean;
}

interface Held {
  readonly classId: number;
  readonly node: number;
  readonly fn: number;
  readonly spins: boolean;
  readonly recursive: boolean;
}

const SUBCLASSES = 8;
const PLAIN: Acquisition = {};

/** The dependency graph of one kernel. */
export class Lockdep {
  /** debug_locks: false after the first report. */
  active = true;
  private readonly machine: Machine;
  private readonly checks: Checks;
  private readonly nameOf: (classId: number) => string;
  private readonly held = new WeakMap<Task, Held[]>();
  /** Node -> successors, each with the function that took it first in that order. */
  private readonly edges = new Map<number, Map<number, number>>();

  constructor(machine: Machine, checks: Checks, nameOf: (classId: number) => string) {
    this.machine = machine;
    this.checks = checks;
    this.nameOf = nameOf;
  }

  /**
   * `t` is about to take a lock of the class; `fn` is the profile id of the asking function. Class
   * -1 is ignored.
   */
  acquire(t: Task, classId: number, fn: number, how: Acquisition = PLAIN): void {
    if (!this.active || classId < 0) return;
    const node = classId * SUBCLASSES + (how.subclass ?? 0);
    let stack = this.held.get(t);
    if (stack === undefined) {
      stack = [];
      this.held.set(t, stack);
    }
    if (how.sleeping === true && how.trylock !== true) this.checkWaitContext(t, stack, node, fn);
    if (how.trylock !== true) this.addEdges(t, stack, node, fn, how.recursiveRead === true);
    stack.push({
      classId,
      node,
      fn,
      spins: how.sleeping !== true && how.pseudo !== true,
      recursive: how.recursiveRead === true,
    });
  }

  /** As `acquire` of an exclusive lock with a nesting annotation. */
  acquireNested(t: Task, classId: number, fn: number, subclass: number): void {
    this.acquire(t, classId, fn, subclass === 0 ? PLAIN : {subclass});
  }

  /** `t` has let go of a lock of the class, in any order. */
  release(t: Task, classId: number): void {
    const stack = this.held.get(t);
    if (stack === undefined) return;
    for (let at = stack.length - 1; at >= 0; at--) {
      if (stack[at].classId !== classId) continue;
      stack.splice(at, 1);
      return;
    }
  }

  /** Names of the classes that `t` holds, oldest first. */
  heldBy(t: Task): string[] {
    return (this.held.get(t) ?? []).map((lock) => this.describe(lock.node));
  }

  /** True when the order `before` then `after` has been seen. */
  hasEdge(before: number, after: number): boolean {
    return this.edges.get(before * SUBCLASSES)?.has(after * SUBCLASSES) ?? false;
  }

  private checkWaitContext(t: Task, stack: Held[], node: number, fn: number): void {
    const spinning = stack.find((lock) => lock.spins);
    if (spinning === undefined) return;
    const under = this.describe(spinning.node);
    this.report(`invalid wait context: ${this.who(t, node, fn)} holding the spinlock ${under}`);
  }

  private addEdges(t: Task, stack: Held[], node: number, fn: number, recursive: boolean): void {
    for (const lock of stack) {
      if (!this.active) return;
      if (lock.node === node) {
        if (recursive && lock.recursive) continue;
        this.report(`possible recursive locking: ${this.who(t, node, fn)} holding one already`);
        return;
      }
      if (!recursive) this.addEdge(t, lock.node, node, fn);
    }
  }

  private addEdge(t: Task, from: number, to: number, fn: number): void {
    let successors = this.edges.get(from);
    if (successors === undefined) {
      successors = new Map();
      this.edges.set(from, successors);
    }
    if (successors.has(to)) return;
    const path = this.pathBetween(to, from);
    successors.set(to, fn);
    if (path === null) return;
    const held = this.describe(from);
    this.report(
      `possible circular locking dependency: ${this.who(t, to, fn)} holding ${held}; ` +
        `existing chain: ${this.chain(path)}`,
    );
  }

  /** The shortest known order from one node to another, null when there is none. */
  private pathBetween(from: number, to: number): number[] | null {
    const cameFrom = new Map<number, number>([[from, from]]);
    const queue = [from];
    for (const at of queue) {
      if (at === to) {
        const path = [at];
        for (let node = at; node !== from; ) {
          node = cameFrom.get(node)!;
          path.unshift(node);
        }
        return path;
      }
      for (const next of this.edges.get(at)?.keys() ?? []) {
        if (cameFrom.has(next)) continue;
        cameFrom.set(next, at);
        queue.push(next);
      }
    }
    return null;
  }

  private chain(path: readonly number[]): string {
    let text = this.describe(path[0]);
    for (let i = 1; i < path.length; i++) {
      const fn = this.edges.get(path[i - 1])!.get(path[i])!;
      text += ` -> ${this.describe(path[i])} (${this.machine.profile.names[fn]})`;
    }
    return text;
  }

  private who(t: Task, node: number, fn: number): string {
    const where = this.machine.profile.names[fn];
    return `${t.comm}/${t.tid} takes ${this.describe(node)} in ${where}`;
  }

  private describe(node: number): string {
    const name = this.nameOf(Math.floor(node / SUBCLASSES));
    const subclass = node % SUBCLASSES;
    return subclass === 0 ? name : `${name}/${subclass}`;
  }

  private report(text: string): void {
    this.active = false;
    this.checks.lockdep++;
    this.checks.finding(`lockdep: ${text}`);
  }
}
