// For tests of userfaultfd: contexts, threads that read, stores and loads that look at contents.

import assert from 'node:assert/strict';
import type {Code} from '../../machine/process.ts';
import {hardwareWalk, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import {PTHREAD_FLAGS} from '../clone_flags.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import {shmem_zero_setup, sys_mmap} from '../mm/mmap.ts';
import {MAP_PRIVATE, MAP_SHARED, propsFor, vmFlags} from '../mm/mmap_prot.ts';
import {access} from '../mm/mm_testing.ts';
import type {Task} from '../task.ts';
import {sys_userfaultfd, userfaultfd_ioctl, userfaultfd_read} from './userfaultfd_ioctl.ts';
import {
  UFFD_API,
  UFFDIO_API,
  UFFDIO_COPY,
  UFFDIO_REGISTER,
  UFFDIO_WRITEPROTECT,
  type UffdMsg,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

/** First page of the registered area, and of what is copied from; both begin a huge page. */
export const DST = 2 ** 31;
export const SRC = 2 ** 31 + 2 ** 20;
const RW = 3;

/** mmap(MAP_FIXED) of private anonymous memory, or with `shared` of a shmem file. */
export function* mapAt(k: Kernel, t: Task, start: number, pages: number, shared = false): Code {
  const flags = vmFlags(k, RW, shared ? MAP_SHARED : MAP_PRIVATE);
  const anon = propsFor(flags, null);
  const props = shared ? shmem_zero_setup(k, anon, pages) : anon;
  yield* sys_mmap(k, t, {start, fixed: true, pages, pgoff: 0, props, populate: false});
}

/** userfaultfd(2) and UFFDIO_API. */
export function* open(k: Kernel, t: Task, features = 0, flags = 0): Code<UserfaultfdCtx> {
  const ctx = yield* sys_userfaultfd(k, t, flags);
  assert.ok(typeof ctx !== 'number', 'userfaultfd failed');
  const args = {start: UFFD_API, pages: 0, src: 0, mode: features};
  const {ret} = yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_API, args);
  assert.equal(ret, 0, 'UFFDIO_API failed');
  return ctx;
}

/** An ioctl; its return value. */
export function* ioctl(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  cmd: number,
  start: number,
  pages: number,
  mode = 0,
  src = 0,
): Code<number> {
  return (yield* userfaultfd_ioctl(k, t, ctx, cmd, {start, pages, mode, src})).ret;
}

/** UFFDIO_REGISTER that must succeed. */
export function* register(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  start: number,
  pages: number,
  mode: number,
): Code {
  assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, start, pages, mode), 0);
}

/** Protects a range or releases it. */
export function* protect(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  start: number,
  pages: number,
  on: boolean,
): Code<number> {
  return yield* ioctl(k, t, ctx, UFFDIO_WRITEPROTECT, start, pages, on ? 1 : 0);
}

/** One message; fails when there is none. */
export function* read(k: Kernel, t: Task, ctx: UserfaultfdCtx): Code<UffdMsg> {
  const msg = yield* userfaultfd_read(k, t, ctx);
  assert.ok(typeof msg !== 'number', `read: ${String(msg)}`);
  return msg;
}

/** A thread of t's process on another CPU; `ended` is true when its program is over. */
export function* thread(
  k: Kernel,
  t: Task,
  program: (c: Task) => Code<unknown>,
): Code<{ended: boolean}> {
  const state = {ended: false};
  yield* sys_clone(k, t, {
    flags: PTHREAD_FLAGS,
    childTid: 500 + (nextTid++ % 400),
    pinnedCpu: 1,
    *program(c) {
      yield* program(c);
      state.ended = true;
    },
  });
  return state;
}
let nextTid = 0;

/** Answers `count` faults of missing pages with copies from SRC + (page - DST). What was read. */
export function* serveMissing(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  count: number,
): Code<UffdMsg[]> {
  const seen: UffdMsg[] = [];
  for (let n = 0; n < count; n++) {
    const msg = yield* read(k, t, ctx);
    seen.push(msg);
    yield* ioctl(k, t, ctx, UFFDIO_COPY, msg.vpn, 1, 0, SRC + (msg.vpn - DST));
  }
  return seen;
}

/** pfn at a page, 0 for none and for zeros. */
export function pfnOf(k: Kernel, t: Task, vpn: number): number {
  const {pt} = k.mm;
  const slot = hardwareWalk(t.mm!.user!.pgd, vpn, false);
  if (slot < 0 || (pt.flags[slot] & PTE_SPECIAL) !== 0) return 0;
  const huge = (pt.flags[slot] & PTE_HUGE) !== 0;
  return (pt.entries[slot] & 0x7fff_ffff) + (huge ? vpn % 512 : 0);
}

/** Flags word of the entry that decides about a page. */
export function wordOf(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.flags[walkSlot(t.mm!.user!.pgd, vpn)];
}

/** A store of `content`, made again after each fault; the name of the last fault that was one. */
export function* store(k: Kernel, t: Task, vpn: number, content: number): Code<string> {
  const result = yield* touch(k, t, vpn, true);
  if (!result.startsWith('sig')) k.mm.pages.content[pfnOf(k, t, vpn)] = content;
  return result;
}

/** What a load finds: a content, or -1 for a signal. */
export function* load(k: Kernel, t: Task, vpn: number): Code<number> {
  const result = yield* touch(k, t, vpn, false);
  if (result.startsWith('sig')) return -1;
  const pfn = pfnOf(k, t, vpn);
  return pfn === 0 ? 0 : k.mm.pages.content[pfn];
}

function* touch(k: Kernel, t: Task, vpn: number, write: boolean): Code<string> {
  let last = 'none';
  for (let tries = 0; tries < 100; tries++) {
    const result = yield* access(k, t, vpn, write);
    if (result === 'none') return last;
    last = result;
    if (result.startsWith('sig')) return last;
  }
  throw new Error(`page ${vpn} faults for ever`);
}
