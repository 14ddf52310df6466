// For tests of hugetlb: pools, mappings through mmap, processes that wait for one another.

import type {Code} from '../../machine/process.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {runDesign} from './dax_testing.ts';
import {hugetlb_anon_setup, hugetlbProps} from './hugetlb_file.ts';
import {type HState, set_max_huge_pages} from './hugetlb_pool.ts';
import type {ProbeLog} from './mm_testing.ts';
import {sys_mmap} from './mmap.ts';
import {
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
  vmFlags,
} from './mmap_prot.ts';

export const SHARED = MAP_SHARED;
export const PRIVATE = MAP_PRIVATE;
export const NORESERVE = MAP_NORESERVE;
/** Small pages of 2 MB. */
export const H = 512;

/** A kernel with a pool of `count` pages of 2 MB and one process. */
export function withPool(
  count: number,
  program: (k: Kernel, t: Task, log: ProbeLog) => Code<unknown>,
  version = '6.18',
): Kernel {
  return runDesign(version, [], function* (k, t, log) {
    set_max_huge_pages(k, t, k.mm.hugetlb.default, count);
    log.take();
    yield* program(k, t, log);
  });
}

/** mmap of `n` huge pages at `start`: of a file, or of one of its own. First page, or -errno. */
export function* mapHuge(
  k: Kernel,
  t: Task,
  start: number,
  n: number,
  flags: number,
  file: AddressSpace | null = null,
  h: HState = k.mm.hugetlb.default,
): Code<number> {
  const mapping = file ?? hugetlb_anon_setup(k, h, n * h.pages);
  const vm = vmFlags(k, PROT_READ | PROT_WRITE, flags);
  const props = hugetlbProps(vm, mapping);
  const args = {start, fixed: true, pages: n * h.pages, pgoff: 0, props, populate: false};
  return yield* sys_mmap(k, t, args);
}

/** HugePages_Total, _Free, _Rsvd, _Surp. */
export function counts(k: Kernel, h: HState = k.mm.hugetlb.default): number[] {
  return [h.nrHugePages, h.freeHugePages, h.resvHugePages, h.surplusHugePages];
}

/** A child process on CPU 1; `done` is true when its program has ended. */
export function* child(
  k: Kernel,
  t: Task,
  program: (c: Task) => Code<unknown>,
): Code<{done: boolean; task: Task}> {
  const state = {done: false, task: t};
  const task = yield* sys_clone(k, t, {
    flags: 0,
    childTid: 200 + (nextTid++ % 1000),
    pinnedCpu: 1,
    *program(c) {
      yield* program(c);
      state.done = true;
    },
  });
  if (task !== null) state.task = task;
  return state;
}
let nextTid = 0;

/** Computes until `ready` says so. */
export function* until(k: Kernel, t: Task, ready: () => boolean): Code {
  while (!ready()) yield* k.sched.userRun(t, 20_000);
}
