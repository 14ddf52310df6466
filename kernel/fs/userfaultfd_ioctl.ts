// fs/userfaultfd.c, 6.18: the system call and the ioctls of its descriptor. What an ioctl fills in
// of its structure (features, ioctls of a range, bytes done) is `out`; a fill that got only a part
// done says how much there and returns EAGAIN, and the caller goes on from that place.

import type {Code} from '../../machine/process.ts';
import {EAGAIN, EBADF, EINVAL, ENOSYS, ESRCH} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import {enterSystemCall} from '../mm/mmap_lock.ts';
import {mfill_atomic, type MfillMode} from '../mm/userfaultfd.ts';
import {move_pages} from '../mm/userfaultfd_move.ts';
import {mwriteprotect_range} from '../mm/userfaultfd_protect.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {closeFile, installFile} from './file.ts';
import {setUserfaultfds, Userfaultfds, userfaultfdsOf} from './userfaultfd.ts';
import {uffdWork} from './userfaultfd_costs.ts';
import {UffdEvents} from './userfaultfd_events.ts';
import {userfaultfd_register, userfaultfd_unregister} from './userfaultfd_register.ts';
import {
  featuresOf,
  O_CLOEXEC,
  O_NONBLOCK,
  UFFD_API,
  UFFD_FEATURE_EVENT_REMAP,
  UFFD_FEATURE_MINOR_HUGETLBFS,
  UFFD_FEATURE_MOVE,
  UFFD_FEATURE_PAGEFAULT_FLAG_WP,
  UFFD_FEATURE_POISON,
  UFFD_FEATURE_WP_ASYNC,
  UFFD_FEATURE_WP_UNPOPULATED,
  UFFD_USER_MODE_ONLY,
  UFFDIO_API,
  UFFDIO_CONTINUE,
  UFFDIO_COPY,
  UFFDIO_MODE_DONTWAKE,
  UFFDIO_MODE_WP,
  UFFDIO_MOVE,
  UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
  UFFDIO_POISON,
  UFFDIO_REGISTER,
  UFFDIO_UNREGISTER,
  UFFDIO_WAKE,
  UFFDIO_WRITEPROTECT,
  UFFDIO_WRITEPROTECT_MODE_DONTWAKE,
  UFFDIO_WRITEPROTECT_MODE_WP,
  UFFDIO_ZEROPAGE,
  type UffdMsg,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

/** Arguments of an ioctl, places and lengths in pages. */
export interface UffdArgs {
  readonly start: number;
  readonly pages: number;
  /** Source of a copy or move. */
  readonly src: number;
  /** Mode; features with UFFDIO_API. */
  readonly mode: number;
}

/** `ret`: 0 or -errno; `out`: what the structure says then (pages done, features, ioctls). */
export interface UffdResult {
  readonly ret: number;
  readonly out: number;
}

const events = new WeakMap<Userfaultfds, UffdEvents>();

/** The contexts of a kernel; the first time its hooks are installed. */
export function userfaultfds(k: Kernel): Userfaultfds {
  const known = userfaultfdsOf(k);
  if (known !== null) return known;
  const all = new Userfaultfds(k);
  const made = new UffdEvents(all);
  const {hooks} = k.mm;
  setUserfaultfds(k, all);
  events.set(all, made);
  hooks.handle_userfault = (t, f, reason) => all.handle_userfault(t, f, reason);
  hooks.dup_userfaultfd = (t, vma, parent) => made.dup_userfaultfd(t, vma, parent);
  hooks.dup_userfaultfd_complete = (t, failed) => made.dup_userfaultfd_complete(t, failed);
  hooks.userfaultfd_unmap_prep = (t, vma, from, to) =>
    made.userfaultfd_unmap_prep(t, vma, from, to);
  hooks.userfaultfd_unmap_complete = (t) => made.userfaultfd_unmap_complete(t);
  hooks.mremap_userfaultfd_prep = (t, vma) => made.mremap_userfaultfd_prep(t, vma);
  hooks.mremap_userfaultfd_complete = (t, from, to, pages) =>
    made.mremap_userfaultfd_complete(t, from, to, pages);
  hooks.userfaultfd_remove = (t, user, vma, from, to) =>
    made.userfaultfd_remove(t, user, vma, from, to);
  hooks.keepsUffdOnRemap = (vma) => all.has(vma, UFFD_FEATURE_EVENT_REMAP);
  return all;
}

/** userfaultfd(2): a context of the caller's mm, or -ENOSYS, -EINVAL. */
export function* sys_userfaultfd(k: Kernel, t: Task, flags: number): Code<UserfaultfdCtx | number> {
  enterSystemCall(k, t);
  const {version} = k.facts;
  if (isBefore(version, '4.3')) return -ENOSYS;
  const user = isBefore(version, '5.11') ? 0 : UFFD_USER_MODE_ONLY;
  if ((flags & ~(O_CLOEXEC | O_NONBLOCK | user)) !== 0) return -EINVAL;
  t.cpu.charge(uffdWork(k).costs.createTicks, uffdWork(k).fns.__do_sys_userfaultfd);
  if (t.cpu.settle()) yield;
  const ctx = userfaultfds(k).create(k.mm.userOf(t.mm!), flags, 0);
  installFile(t, ctx.file, (flags & O_CLOEXEC) !== 0);
  return ctx;
}

/** True when the task has the context's descriptor, its own or an inherited one. */
export function hasUserfaultfd(t: Task, ctx: UserfaultfdCtx): boolean {
  return t.files?.files.includes(ctx.file) ?? false;
}

/** read(2) of one message: it, or -errno. */
export function* userfaultfd_read(k: Kernel, t: Task, ctx: UserfaultfdCtx): Code<UffdMsg | number> {
  const nonblock = (ctx.flags & O_NONBLOCK) !== 0;
  const msg = yield* events.get(userfaultfds(k))!.read(t, ctx, nonblock);
  if (typeof msg !== 'number' && msg.child !== null) {
    // resolve_userfault_fork: the reader gets a descriptor for the child's context.
    t.cpu.charge(uffdWork(k).costs.createTicks, uffdWork(k).fns.userfaultfd_read);
    installFile(t, msg.child.file, (msg.child.flags & O_CLOEXEC) !== 0);
  }
  return msg;
}

/** close(2): the last descriptor of all processes releases the context. 0 or -EBADF. */
export function* userfaultfd_close(k: Kernel, t: Task, ctx: UserfaultfdCtx): Code<number> {
  enterSystemCall(k, t);
  t.cpu.charge(uffdWork(k).costs.closeTicks, uffdWork(k).fns.userfaultfd_release);
  return (yield* closeFile(k, t, ctx.file)) ? 0 : -EBADF;
}

/** userfaultfd_ioctl. */
export function* userfaultfd_ioctl(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  cmd: number,
  args: UffdArgs,
): Code<UffdResult> {
  enterSystemCall(k, t);
  const {costs, fns} = uffdWork(k);
  t.cpu.charge(costs.ioctlTicks, fns.userfaultfd_ioctl);
  if (cmd === UFFDIO_API) return userfaultfd_api(k, ctx, args);
  if (!ctx.initialized || !isKnown(k, cmd)) return failed(-EINVAL);
  const {start, pages, src, mode} = args;
  const end = start + pages;
  if (!validRange(ctx, start, pages)) return failed(-EINVAL);
  switch (cmd) {
    case UFFDIO_REGISTER: {
      const ioctls = yield* userfaultfd_register(k, t, ctx, start, end, mode);
      return ioctls < 0 ? failed(ioctls) : {ret: 0, out: ioctls};
    }
    case UFFDIO_UNREGISTER:
      return failed(yield* userfaultfd_unregister(k, t, userfaultfds(k), ctx, start, end));
    case UFFDIO_WAKE:
      yield* userfaultfds(k).wake_userfault(t, ctx, start, end);
      return failed(0);
    case UFFDIO_WRITEPROTECT:
      return failed(yield* writeProtect(k, t, ctx, start, end, mode));
    case UFFDIO_MOVE: {
      if (src < 0 || !validRange(ctx, src, pages)) return failed(-EINVAL);
      const known = UFFDIO_MODE_DONTWAKE | UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES;
      if ((mode & ~known) !== 0) return failed(-EINVAL);
      if (ctx.user.mm.users === 0) return failed(-ESRCH);
      const holes = (mode & UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES) !== 0;
      const done = yield* move_pages(k, t, {ctx, start, src, pages, holes});
      return yield* finish(k, t, ctx, args, done);
    }
    default: {
      const fill = FILLS.get(cmd)!;
      const wp = wpMode(k, cmd);
      if ((mode & ~(UFFDIO_MODE_DONTWAKE | wp)) !== 0) return failed(-EINVAL);
      if (ctx.user.mm.users === 0) return failed(-ESRCH);
      const protects = (mode & UFFDIO_MODE_WP & wp) !== 0;
      const call = {ctx, mode: fill, start, src, pages, wp: protects};
      return yield* finish(k, t, ctx, args, yield* mfill_atomic(k, t, call));
    }
  }
}

const FILLS: ReadonlyMap<number, MfillMode> = new Map([
  [UFFDIO_COPY, 'copy'],
  [UFFDIO_ZEROPAGE, 'zeropage'],
  [UFFDIO_CONTINUE, 'continue'],
  [UFFDIO_POISON, 'poison'],
]);

/** The mode bit that write-protects what is filled, where the ioctl has it. */
function wpMode(k: Kernel, cmd: number): number {
  const since = cmd === UFFDIO_COPY ? '5.7' : cmd === UFFDIO_CONTINUE ? '6.4' : '';
  return since === '' || isBefore(k.facts.version, since) ? 0 : UFFDIO_MODE_WP;
}

/** Feature with which an ioctl came. */
const NEEDS: ReadonlyMap<number, number> = new Map([
  [UFFDIO_WRITEPROTECT, UFFD_FEATURE_PAGEFAULT_FLAG_WP],
  [UFFDIO_CONTINUE, UFFD_FEATURE_MINOR_HUGETLBFS],
  [UFFDIO_POISON, UFFD_FEATURE_POISON],
  [UFFDIO_MOVE, UFFD_FEATURE_MOVE],
]);

function isKnown(k: Kernel, cmd: number): boolean {
  const needed = NEEDS.get(cmd) ?? 0;
  return cmd <= UFFDIO_POISON && (featuresOf(k.facts.version) & needed) === needed;
}

/** validate_range. */
function validRange(ctx: UserfaultfdCtx, start: number, pages: number): boolean {
  if (!Number.isInteger(start) || !Number.isInteger(pages)) return false;
  return pages > 0 && start >= 0 && start + pages <= ctx.user.space.taskSize;
}

function failed(ret: number): UffdResult {
  return {ret, out: ret};
}

/** The end of a fill: who waits is woken, a part is EAGAIN. */
function* finish(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  {start, pages, mode}: UffdArgs,
  done: number,
): Code<UffdResult> {
  if (done < 0) return failed(done);
  if ((mode & UFFDIO_MODE_DONTWAKE) === 0 && done > 0) {
    yield* userfaultfds(k).wake_userfault(t, ctx, start, start + done);
  }
  return {ret: done === pages ? 0 : -EAGAIN, out: done};
}

/** userfaultfd_writeprotect. */
function* writeProtect(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  start: number,
  end: number,
  mode: number,
): Code<number> {
  const wp = (mode & UFFDIO_WRITEPROTECT_MODE_WP) !== 0;
  const quiet = (mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE) !== 0;
  const known = UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  if (ctx.mmapChanging > 0) return -EAGAIN;
  if ((mode & ~known) !== 0 || (wp && quiet)) return -EINVAL;
  if (ctx.user.mm.users === 0) return -ESRCH;
  const result = yield* mwriteprotect_range(k, t, ctx, start, end, wp);
  if (result === 0 && !wp && !quiet) yield* userfaultfds(k).wake_userfault(t, ctx, start, end);
  return result;
}

/** userfaultfd_api: `start` is the version of the protocol, `mode` the features asked for. */
function userfaultfd_api(k: Kernel, ctx: UserfaultfdCtx, {start, mode}: UffdArgs): UffdResult {
  const features = featuresOf(k.facts.version);
  if (start !== UFFD_API || (mode & ~features) !== 0 || ctx.initialized) return failed(-EINVAL);
  ctx.initialized = true;
  const async = (mode & UFFD_FEATURE_WP_ASYNC) !== 0;
  ctx.features = async ? mode | UFFD_FEATURE_WP_UNPOPULATED : mode;
  return {ret: 0, out: features};
}
