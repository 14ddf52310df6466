// Demand paging by userfaultfd: however many threads fault and however many readers answer, every
// page is resolved once and all find its content. As KVM's demand_paging_test has it for guests.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {PTHREAD_FLAGS} from '../clone_flags.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import {runProcess} from '../mm/mm_testing.ts';
import type {Task} from '../task.ts';
import {userfaultfd_close, userfaultfd_ioctl, userfaultfd_read} from './userfaultfd_ioctl.ts';
import {DST, load, mapAt, open, pfnOf, register, SRC, store} from './userfaultfd_testing.ts';
import {UFFDIO_COPY, type UserfaultfdCtx} from './userfaultfd_types.ts';

const PAGES = 16;

/** A thread on CPU `cpu`. */
function* threadOn(
  k: Kernel,
  t: Task,
  cpu: number,
  program: (c: Task) => Code<unknown>,
): Code<{ended: boolean}> {
  const state = {ended: false};
  yield* sys_clone(k, t, {
    flags: PTHREAD_FLAGS,
    childTid: 600 + nextTid++,
    pinnedCpu: cpu,
    *program(c) {
      yield* program(c);
      state.ended = true;
    },
  });
  return state;
}
let nextTid = 0;

/** Copies pages in until the context is gone; `resolved` counts by page. */
function* reader(k: Kernel, t: Task, ctx: UserfaultfdCtx, resolved: number[]): Code {
  for (;;) {
    const msg = yield* userfaultfd_read(k, t, ctx);
    if (typeof msg === 'number') return;
    const page = msg.vpn - DST;
    const args = {start: msg.vpn, pages: 1, src: SRC + page, mode: 0};
    const {ret} = yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_COPY, args);
    if (ret === 0) resolved[page]++;
    else assert.equal(ret, -17, 'the page was there already');
  }
}

test('law: demand paging resolves each page once, for all who fault', () => {
  const page = fc.nat({max: PAGES - 1});
  const access = fc.tuple(page, fc.boolean());
  const programs = fc.array(fc.array(access, {minLength: 1, maxLength: 20}), {
    minLength: 1,
    maxLength: 5,
  });
  const property = fc.property(programs, fc.integer({min: 1, max: 3}), (threads, readers) => {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, PAGES);
      yield* mapAt(k, t, SRC, PAGES);
      for (let n = 0; n < PAGES; n++) yield* store(k, t, SRC + n, 100 + n);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, PAGES, 1);
      const resolved = new Array<number>(PAGES).fill(0);
      for (let n = 0; n < readers; n++) {
        yield* threadOn(k, t, n, (c) => reader(k, c, ctx, resolved));
      }
      const touched = new Set<number>();
      const all: {ended: boolean}[] = [];
      for (const [i, accesses] of threads.entries()) {
        const program = function* (c: Task): Code<unknown> {
          for (const [at, write] of accesses) {
            touched.add(at);
            if (write) yield* store(k, c, DST + at, 100 + at);
            else assert.equal(yield* load(k, c, DST + at), 100 + at);
          }
          return 0;
        };
        all.push(yield* threadOn(k, t, 2 + i, program));
      }
      while (!all.every(({ended}) => ended)) yield* k.sched.userRun(t, 20_000);
      for (let n = 0; n < PAGES; n++) {
        assert.equal(resolved[n], touched.has(n) ? 1 : 0, `page ${n}`);
        if (touched.has(n)) assert.notEqual(pfnOf(k, t, DST + n), 0);
      }
      assert.equal(ctx.pending.length + ctx.faults.length, 0);
      yield* userfaultfd_close(k, t, ctx);
    });
  });
  fc.assert(property, {numRuns: 40});
});
