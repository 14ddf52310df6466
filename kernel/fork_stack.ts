// kernel/fork.c, kernel stacks: alloc_thread_stack_node and free_thread_stack.
//
// With VMAP_STACK (x86-64 since 4.9) a stack is four pages of vmalloc space and a guard page. Each
// CPU keeps up to two dead stacks (NR_CACHED_STACKS) for the next fork there; only when that cache
// is empty does fork call vmalloc, and only when it is full does exit call vfree. Parent and child
// on different CPUs defeat it: stacks are freed where the child dies, and asked for where the
// parent forks. Linux frees a dead task's stack from finish_task_switch of the next task (4.9 to
// 5.17) or from RCU (5.18+), with the vfree itself deferred to a worker of the same CPU; here the
// dying task does it as its last act, on the same CPU.

import type {Code} from '../machine/process.ts';
import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';

/** THREAD_SIZE in pages: 16 KiB on x86-64. */
export const THREAD_PAGES = 4;
/** Dead stacks that a CPU keeps. */
export const NR_CACHED_STACKS = 2;

/** Kernel stacks of one machine. */
export class ThreadStacks {
  /** Stacks taken from a CPU's cache, and those for which vmalloc was asked. */
  hits = 0;
  misses = 0;
  private readonly cached: number[][];

  /** CONFIG_VMAP_STACK: 64-bit only (HAVE_ARCH_VMAP_STACK). */
  private readonly vmapped: boolean;

  constructor(readonly kernel: Kernel) {
    this.vmapped = kernel.facts.vmapStack && kernel.pageTables.layout.is64;
    this.cached = kernel.machine.cpus.map(() => []);
  }

  /** Stacks that lie in the CPUs' caches. */
  get cachedCount(): number {
    return this.cached.reduce((sum, stacks) => sum + stacks.length, 0);
  }

  /** Gives `p` a cleared stack. */
  *alloc_thread_stack_node(t: Task, p: Task): Code {
    const {costs, fns, vmalloc} = this.kernel;
    const fn = fns.alloc_thread_stack_node;
    if (!this.vmapped) {
      t.cpu.charge(costs.allocThreadStackTicks, fn);
      return;
    }
    t.cpu.charge(costs.cachedStackTicks, fn);
    const stack = this.cached[t.cpu.id].pop();
    if (stack !== undefined) {
      this.hits++;
      p.stackVpn = stack;
    } else {
      this.misses++;
      p.stackVpn = yield* vmalloc.vmalloc(t, THREAD_PAGES, 'alloc_thread_stack_node');
    }
    yield* vmalloc.access(t, p.stackVpn);
    t.cpu.charge(THREAD_PAGES * (4 * costs.clearKibTicks + costs.stackPageAccountTicks), fn);
  }

  /** Takes the stack of `p` back. */
  *free_thread_stack(t: Task, p: Task): Code {
    const {costs, fns, vmalloc} = this.kernel;
    if (!this.vmapped) {
      t.cpu.charge(costs.freeThreadStackTicks, fns.free_thread_stack);
      return;
    }
    if (p.stackVpn === 0) return;
    t.cpu.charge(THREAD_PAGES * costs.stackPageAccountTicks, fns.exit_task_stack_account);
    t.cpu.charge(costs.cachedStackTicks, fns.free_thread_stack);
    const stacks = this.cached[t.cpu.id];
    const vpn = p.stackVpn;
    p.stackVpn = 0;
    if (stacks.length < NR_CACHED_STACKS) stacks.push(vpn);
    else yield* vmalloc.vfree(t, vpn);
  }
}
