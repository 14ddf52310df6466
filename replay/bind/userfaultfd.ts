// Bindings of userfaultfd: contexts by descriptor, ioctls, reads, and a reader that answers faults
// by itself. A descriptor's number stands for the same in all processes of one copy of a trace;
// which of them has it open, the kernel says: who called, who inherited it by fork, who read a
// fork's message.
//
// A reader waits as the kernel's does; a trace whose reader waits for a fault that never comes does
// not end there, and its last steps are missed among the expectations that were looked at.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {EBADF, EEXIST} from '../../kernel/errno.ts';
import {
  hasUserfaultfd,
  sys_userfaultfd,
  userfaultfd_close,
  userfaultfd_ioctl,
  userfaultfd_read,
} from '../../kernel/fs/userfaultfd_ioctl.ts';
import {
  UFFD_API,
  UFFD_EVENT_PAGEFAULT,
  UFFD_PAGEFAULT_FLAG_MINOR,
  UFFD_PAGEFAULT_FLAG_WP,
  UFFDIO_API,
  UFFDIO_CONTINUE,
  UFFDIO_COPY,
  UFFDIO_MODE_WP,
  UFFDIO_MOVE,
  UFFDIO_WRITEPROTECT,
  UFFDIO_ZEROPAGE,
  type UffdMsg,
  type UserfaultfdCtx,
} from '../../kernel/fs/userfaultfd_types.ts';
import {unitOf} from '../../kernel/mm/hugetlb_file.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  type Outcome,
  outcomeOf,
  PAGE_BYTES,
} from './binding.ts';
import {compare, resultName} from './conformance.ts';

const ANY = Number.MAX_SAFE_INTEGER;
/** `answer` of a reader: what it does about missing pages, and protected copies. */
const ANSWERS = [UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_MOVE] as const;
const ANSWER_WP = 4;

const descriptors = new WeakMap<BindingContext, Map<number, UserfaultfdCtx>>();

function openIn(context: BindingContext): Map<number, UserfaultfdCtx> {
  let open = descriptors.get(context);
  if (open === undefined) {
    open = new Map();
    descriptors.set(context, open);
  }
  return open;
}

/** What descriptor `k` of event `i` stands for; undefined when the task has not got it. */
function descriptor(
  context: BindingContext,
  t: Task,
  i: number,
  k: number,
): UserfaultfdCtx | undefined {
  const ctx = openIn(context).get(argNumber(context.events, i, k));
  return ctx !== undefined && hasUserfaultfd(t, ctx) ? ctx : undefined;
}

/** The system call and UFFDIO_API with `features`. */
function* expect_userfaultfd(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const ctx = yield* sys_userfaultfd(kernel, t, argNumber(events, i, 2));
  let found = typeof ctx === 'number' ? ctx : 0;
  if (typeof ctx !== 'number') {
    openIn(context).set(argNumber(events, i, 1), ctx);
    const args = {start: UFFD_API, pages: 0, src: 0, mode: argNumber(events, i, 3)};
    found = (yield* userfaultfd_ioctl(kernel, t, ctx, UFFDIO_API, args)).ret;
  }
  return compare(context, i, argSigned(events, i, 4), found, resultName);
}

function* expect_uffd_ioctl(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const ctx = descriptor(context, t, i, 1);
  const nr = argNumber(events, i, 2);
  const [addr, len, src] = [3, 4, 5].map((k) => argNumber(events, i, k));
  const mode = argNumber(events, i, 6);
  const api = nr === UFFDIO_API;
  const start = api ? addr : addr / PAGE_BYTES;
  const args = {start, pages: len / PAGE_BYTES, src: src / PAGE_BYTES, mode};
  const {ret, out} =
    ctx === undefined ? {ret: -EBADF, out: 0} : yield* userfaultfd_ioctl(kernel, t, ctx, nr, args);
  const wantedOut = argSigned(events, i, 7);
  const wanted = argSigned(events, i, 8);
  if (ret === wanted && wantedOut !== ANY && out !== wantedOut) {
    return compare(context, i, wantedOut, out, (value) => `out ${value}`);
  }
  return compare(context, i, wanted === ANY ? ret : wanted, ret, resultName);
}

/** What of a message is compared, as text: places in bytes. */
function describe(event: number, flags: number, addr: number, to: number, len: number): string {
  const places = [addr, to, len].map((bytes) => `0x${bytes.toString(16)}`).join(' ');
  return `event 0x${event.toString(16)} flags ${flags} at ${places}`;
}

function textOf(msg: UffdMsg): string {
  const [addr, to, len] = [msg.vpn, msg.to, msg.pages].map((pages) => pages * PAGE_BYTES);
  return describe(msg.event, msg.flags, addr, to, len);
}

function* expect_uffd_read(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const open = openIn(context);
  const ctx = descriptor(context, t, i, 1);
  const wanted = argSigned(events, i, 8);
  const msg = ctx === undefined ? -EBADF : yield* userfaultfd_read(kernel, t, ctx);
  if (typeof msg === 'number') return compare(context, i, wanted, msg, resultName);
  if (msg.child !== null) open.set(argNumber(events, i, 7), msg.child);
  if (wanted !== 0) return compare(context, i, wanted, 0, resultName);
  const [event, flags, addr, to, len] = [2, 3, 4, 5, 6].map((k) => argNumber(events, i, k));
  const texts = [describe(event, flags, addr, to, len), textOf(msg)];
  const same = texts[0] === texts[1] ? 0 : 1;
  return compare(context, i, 0, same, (which) => texts[which]);
}

/** Faults that a reader has answered. */
interface Served {
  missing: number;
  wp: number;
  minor: number;
}

/** Answers faults until as many have come as are expected; anything beyond is seen to. */
function* expect_uffd_serve(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const ctx = descriptor(context, t, i, 1);
  if (ctx === undefined) return compare(context, i, 0, -EBADF, resultName);
  const [first, src] = [2, 3].map((k) => argNumber(events, i, k) / PAGE_BYTES);
  const answer = argNumber(events, i, 4);
  const wanted: Served = {
    missing: argNumber(events, i, 5),
    wp: argNumber(events, i, 6),
    minor: argNumber(events, i, 7),
  };
  const served: Served = {missing: 0, wp: 0, minor: 0};
  let left = wanted.missing + wanted.wp + wanted.minor;
  while (left > 0) {
    const msg = yield* userfaultfd_read(kernel, t, ctx);
    if (typeof msg === 'number') return compare(context, i, 0, msg, resultName);
    if (msg.event !== UFFD_EVENT_PAGEFAULT) {
      return compare(context, i, UFFD_EVENT_PAGEFAULT, msg.event, (event) => `event ${event}`);
    }
    const ret = yield* answerFault(context, t, ctx, msg, first, src, answer, served);
    // Somebody else may have answered for the same page.
    if (ret < 0 && ret !== -EEXIST) return compare(context, i, 0, ret, resultName);
    left--;
  }
  const text = ({missing, wp, minor}: Served) => `${missing} missing, ${wp} wp, ${minor} minor`;
  const same = text(wanted) === text(served) ? 0 : 1;
  return compare(context, i, 0, same, (which) => text(which === 0 ? wanted : served));
}

function* answerFault(
  {kernel}: BindingContext,
  t: Task,
  ctx: UserfaultfdCtx,
  msg: UffdMsg,
  first: number,
  src: number,
  answer: number,
  served: Served,
): Code<number> {
  const vma = ctx.user.space.tree.lookup(msg.vpn);
  const unit = vma === null ? 1 : unitOf(vma);
  const start = msg.vpn - ((msg.vpn - (vma?.start ?? msg.vpn)) % unit);
  const args = {start, pages: unit, src: src + (start - first), mode: 0};
  if ((msg.flags & UFFD_PAGEFAULT_FLAG_WP) !== 0) {
    served.wp++;
    return (yield* userfaultfd_ioctl(kernel, t, ctx, UFFDIO_WRITEPROTECT, args)).ret;
  }
  const protects = (answer & ANSWER_WP) === 0 ? 0 : UFFDIO_MODE_WP;
  const minor = (msg.flags & UFFD_PAGEFAULT_FLAG_MINOR) !== 0;
  if (minor) served.minor++;
  else served.missing++;
  const nr = minor ? UFFDIO_CONTINUE : ANSWERS[answer % ANSWER_WP];
  return (yield* userfaultfd_ioctl(kernel, t, ctx, nr, {...args, mode: protects})).ret;
}

function* uffd_close(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const ctx = descriptor(context, t, i, 0);
  if (ctx === undefined) return 'failed';
  return outcomeOf(yield* userfaultfd_close(context.kernel, t, ctx));
}

export const USERFAULTFD_BINDINGS: BindingTable = [
  [KIND.expect_userfaultfd, expect_userfaultfd],
  [KIND.expect_uffd_ioctl, expect_uffd_ioctl],
  [KIND.expect_uffd_read, expect_uffd_read],
  [KIND.expect_uffd_serve, expect_uffd_serve],
  [KIND.uffd_close, uffd_close],
];
