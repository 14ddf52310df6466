// For tests: a whole kernel on a small machine, and the fork storm that several of them run.

import {Machine} from '../machine/machine.ts';
import {loadMachine} from '../machine/machines.ts';
import type {Code} from '../machine/process.ts';
import {userAccess, userAccessSlow} from './arch/x86/mm/user_fault.ts';
import {kernelFacts} from './design.ts';
import {sys_wait4} from './exit.ts';
import {sys_clone} from './fork.ts';
import {startProcess} from './init_task.ts';
import {Kernel} from './kernel.ts';
import {vm_mmap} from './mm/mmap.ts';
import {propsFor} from './mm/mmap_prot.ts';
import {X86_PF_USER, X86_PF_WRITE} from './mm/vm_fault.ts';
import {VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE} from './mm/vma_flags.ts';
import type {Task} from './task.ts';

/** A kernel on machine `name`. */
export function testKernel(
  name: string,
  version: string,
  overrides: readonly string[] = [],
  seed = 1,
): Kernel {
  const bounds = {maxEvents: 2e7, maxTicks: 2 ** 50, maxQueue: 2 ** 20};
  return new Kernel(
    new Machine(loadMachine(name), {seed, bounds}),
    kernelFacts(version, overrides),
  );
}

/** Runs until nothing is left to do, RCU callbacks included. Returns the time in ticks. */
export function runToEnd(k: Kernel): number {
  return k.machine.engine.run();
}

/** A program that does nothing but compute for `ticks`. */
export function computing(k: Kernel, ticks: number): (t: Task) => Code<unknown> {
  return (t) => k.sched.userRun(t, ticks);
}

/**
 * A dynamically linked program in a testing mm: 40 VMAs, 725 pages mapped, of them 32 that a child
 * soon writes.
 */
const IMAGE = {vmas: 40, pages: 725, childWrites: 32, parentWrites: 18};
const IMAGE_START = 0x5555_5555;
const VMA_STRIDE = 64;

/** Address of page `n` of the image, spread evenly over its VMAs. */
function imagePage(n: number): number {
  return IMAGE_START + (n % IMAGE.vmas) * VMA_STRIDE + Math.floor(n / IMAGE.vmas);
}

/**
 * Pages that the dynamic linker and libc's start touch, and the time that they compute and call the
 * kernel for opening, reading and mapping libraries, which are no operations here. Assumption; on a
 * 2-vCPU EPYC guest a dynamically linked program that does nothing takes 390 us longer from vfork
 * to wait than a static one.
 */
const LINKER_PAGES = 160;
const LINKER_TICKS = 1_790_000;

/** What a new program does until main(). */
export function* startProgram(k: Kernel, t: Task): Code {
  yield* buildImage(k, t, LINKER_PAGES);
  yield* k.sched.userRun(t, LINKER_TICKS);
}

/** Maps the image and writes `pages` of its pages. */
export function* buildImage(k: Kernel, t: Task, pages: number = IMAGE.pages): Code {
  const rw = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE;
  for (let n = 0; n < IMAGE.vmas; n++) {
    const start = imagePage(n);
    const props = propsFor(rw, null);
    const size = {pages: VMA_STRIDE / 2, pgoff: 0};
    yield* vm_mmap(k, t, t.mm!, {start, fixed: true, ...size, props, populate: false});
  }
  yield* writeImage(k, t, pages);
}

/** Writes the first `pages` pages of the image; after fork that copies them. */
export function* writeImage(k: Kernel, t: Task, pages: number): Code {
  for (let n = 0; n < pages; n++) {
    const code = userAccess(k, t, imagePage(n), X86_PF_USER | X86_PF_WRITE);
    if (code < 0) yield* userAccessSlow(k, t, imagePage(n), X86_PF_USER | X86_PF_WRITE, code);
  }
}

/** What the parent writes after fork. */
export function* parentWrites(k: Kernel, t: Task): Code {
  yield* writeImage(k, t, IMAGE.parentWrites);
}

/** What a child writes before it does anything else. */
export function* childWrites(k: Kernel, t: Task): Code {
  yield* writeImage(k, t, IMAGE.childWrites);
}

/**
 * `workers` processes on their own CPUs, each forking and reaping `children` children one after the
 * other.
 */
export function forkStorm(
  k: Kernel,
  workers: number,
  children: number,
  child: (t: Task) => Code<unknown> = computing(k, 1000),
): {reaped: number[]} {
  const reaped: number[] = [];
  for (let w = 0; w < workers; w++) {
    startProcess(k, {
      tid: 100 + w,
      comm: `worker${w}`,
      pinnedCpu: w % k.machine.topology.cpuCount,
      *program(t) {
        yield* buildImage(k, t);
        for (let i = 0; i < children; i++) {
          const childTid = 1000 + w * children + i;
          const program = function* (c: Task): Code<unknown> {
            yield* childWrites(k, c);
            return yield* child(c);
          };
          yield* sys_clone(k, t, {flags: 0, childTid, pinnedCpu: -1, program});
          yield* parentWrites(k, t);
          reaped.push(yield* sys_wait4(k, t, -1, 0));
        }
      },
    });
  }
  return {reaped};
}
