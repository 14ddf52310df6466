// UFFDIO_MOVE and the events of userfaultfd.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {PTE_HUGE, PTE_UFFD_WP} from '../arch/x86/mm/pgtable_bits.ts';
import {FOLL_PIN, FOLL_WRITE, get_user_page} from '../mm/gup.ts';
import {MADV_DONTNEED, MADV_HUGEPAGE} from '../mm/madvise_numbers.ts';
import {do_madvise} from '../mm/madvise.ts';
import {runProcess} from '../mm/mm_testing.ts';
import {sys_munmap} from '../mm/mmap_unmap.ts';
import {do_mremap} from '../mm/mremap.ts';
import {PG_anon_exclusive} from '../mm/page_flags.ts';
import {sys_clone} from '../fork.ts';
import {userfaultfd_close, userfaultfd_ioctl} from './userfaultfd_ioctl.ts';
import {
  DST,
  ioctl,
  load,
  mapAt,
  open,
  pfnOf,
  read,
  register,
  SRC,
  store,
  thread,
  wordOf,
} from './userfaultfd_testing.ts';
import {
  UFFD_EVENT_REMAP,
  UFFD_EVENT_REMOVE,
  UFFD_EVENT_UNMAP,
  UFFD_FEATURE_EVENT_REMAP,
  UFFD_FEATURE_EVENT_REMOVE,
  UFFD_FEATURE_EVENT_UNMAP,
  UFFDIO_MOVE,
  UFFDIO_WRITEPROTECT,
  UFFDIO_ZEROPAGE,
  type UffdMsg,
} from './userfaultfd_types.ts';

const MISSING = 1;
const WP = 2;
const H = 512;

test('pages move with their frames; the notifier hears of the source', () => {
  runProcess(function* (k, t, log) {
    yield* mapAt(k, t, DST, 4);
    yield* mapAt(k, t, SRC, 4);
    for (let n = 0; n < 4; n++) yield* store(k, t, SRC + n, 10 + n);
    const frames = [0, 1, 2, 3].map((n) => pfnOf(k, t, SRC + n));
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, MISSING);
    const rss = t.mm!.user!.rss.counts[1];
    log.take();
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST, 4, 0, SRC), 0);
    const heard = log.take();
    assert.deepEqual(heard, ['start move_pages_ptes', 'flush 4 (3)', 'end move_pages_ptes']);
    assert.deepEqual(
      [0, 1, 2, 3].map((n) => pfnOf(k, t, DST + n)),
      frames,
    );
    assert.equal(yield* load(k, t, DST + 2), 12);
    assert.equal(yield* load(k, t, SRC + 2), 0);
    assert.equal(t.mm!.user!.rss.counts[1], rss);
  });
});

test('before 6.18 each page is told of by itself', () => {
  runProcess(function* (k, t, log) {
    yield* mapAt(k, t, DST, 2);
    yield* mapAt(k, t, SRC, 2);
    for (let n = 0; n < 2; n++) yield* store(k, t, SRC + n, 1);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, MISSING);
    log.take();
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST, 2, 0, SRC), 0);
    const heard = log.take().filter((line) => line.startsWith('start'));
    assert.deepEqual(heard, ['start move_pages_pte', 'start move_pages_pte']);
  }, '6.12');
});

test('what does not move: shared or pinned pages, holes, onto something, unregistered', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 8);
    yield* mapAt(k, t, SRC, 8);
    for (const n of [0, 2, 4]) yield* store(k, t, SRC + n, 1);
    const ctx = yield* open(k, t);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST, 1, 0, SRC), -22);
    yield* register(k, t, ctx, DST, 8, MISSING);
    const args = {start: DST, pages: 3, src: SRC, mode: 0};
    assert.deepEqual(yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_MOVE, args), {ret: -11, out: 1});
    const holes = {start: DST + 1, pages: 2, src: SRC + 1, mode: 2};
    assert.deepEqual(yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_MOVE, holes), {ret: 0, out: 2});
    yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST + 4, 1);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST + 4, 1, 0, SRC + 4), -17);
    const vma = t.mm!.user!.space.tree.lookup(SRC)!;
    yield* get_user_page(k, t, t.mm!, vma, SRC + 4, FOLL_PIN | FOLL_WRITE);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST + 5, 1, 0, SRC + 4), -16);
    yield* store(k, t, SRC + 6, 1);
    let done = false;
    yield* sys_clone(k, t, {
      flags: 0,
      childTid: 800,
      pinnedCpu: 2,
      *program(c) {
        yield* k.sched.userRun(c, 1000);
        done = true;
      },
    });
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST + 6, 1, 0, SRC + 6), -16);
    while (!done) yield* k.sched.userRun(t, 10_000);
  });
});

test('a huge page moves whole where both sides are aligned, else it is split', () => {
  for (const shift of [0, 1]) {
    runProcess(function* (k, t, log) {
      yield* mapAt(k, t, DST, 2 * H);
      yield* mapAt(k, t, SRC, H);
      yield* do_madvise(k, t, SRC, H, MADV_HUGEPAGE);
      yield* store(k, t, SRC + 7, 42);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, 2 * H, MISSING);
      log.take();
      assert.equal(yield* ioctl(k, t, ctx, UFFDIO_MOVE, DST + shift, H, 0, SRC), 0);
      const starts = log.take().filter((line) => line.startsWith('start'));
      assert.equal(starts[0], `start ${shift === 0 ? 'move_pages_huge_pmd' : '__split_huge_pmd'}`);
      assert.equal((wordOf(k, t, DST + shift) & PTE_HUGE) !== 0, shift === 0);
      assert.equal(yield* load(k, t, DST + shift + 7), 42);
      assert.equal(wordOf(k, t, SRC) & 1, 0);
    });
  }
});

test('law: a move keeps contents, frames and exclusivity, whatever the order', () => {
  const steps = fc.array(
    fc.tuple(fc.nat({max: 7}), fc.nat({max: 7}), fc.integer({min: 1, max: 8})),
    {
      maxLength: 12,
    },
  );
  const property = fc.property(steps, (moves) => {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 8);
      yield* mapAt(k, t, SRC, 8);
      for (let n = 0; n < 8; n++) yield* store(k, t, SRC + n, 100 + n);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, 8, MISSING);
      yield* register(k, t, ctx, SRC, 8, MISSING);
      const place = new Map<number, number>();
      for (let n = 0; n < 8; n++) place.set(SRC + n, 100 + n);
      const frames = new Map([...place].map(([vpn, content]) => [content, pfnOf(k, t, vpn)]));
      for (const [i, [from, to, n]] of moves.entries()) {
        const [a, b] = i % 2 === 0 ? [SRC, DST] : [DST, SRC];
        const pages = Math.min(n, 8 - from, 8 - to);
        const args = {start: b + to, pages, src: a + from, mode: 2};
        const {out} = yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_MOVE, args);
        for (let p = 0; p < Math.max(out, 0); p++) {
          const content = place.get(a + from + p);
          if (content === undefined) continue;
          assert.ok(!place.has(b + to + p), 'moved onto a page');
          place.delete(a + from + p);
          place.set(b + to + p, content);
        }
      }
      assert.equal(place.size, 8);
      for (const [vpn, content] of place) {
        const pfn = pfnOf(k, t, vpn);
        assert.equal(pfn, frames.get(content));
        assert.equal(k.mm.pages.content[pfn], content);
        assert.ok((k.mm.pages.flags[pfn] & PG_anon_exclusive) !== 0);
      }
      assert.equal(t.mm!.user!.rss.counts[1], 8);
    });
  });
  fc.assert(property, {numRuns: 60});
});

test('law: registering and unregistering parts leaves the totals as they were', () => {
  const step = fc.tuple(
    fc.boolean(),
    fc.nat({max: 15}),
    fc.integer({min: 1, max: 16}),
    fc.boolean(),
  );
  const property = fc.property(fc.array(step, {maxLength: 20}), (steps) => {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 16);
      const {space} = t.mm!.user!;
      const before = {total: space.totalVm, data: space.dataVm, flags: space.tree.first!.flags};
      const ctx = yield* open(k, t);
      const modes = new Array<number>(16).fill(0);
      for (const [on, at, n, wp] of steps) {
        const pages = Math.min(n, 16 - at);
        const mode = on ? (wp ? 3 : 1) : 0;
        if (on) yield* register(k, t, ctx, DST + at, pages, mode);
        else yield* ioctl(k, t, ctx, 1, DST + at, pages);
        for (let p = at; p < at + pages; p++) modes[p] = on ? mode | (modes[p] === 3 ? 2 : 0) : 0;
        let covered = 0;
        for (let vma = space.tree.first; vma !== null; vma = vma.next) {
          covered += vma.pages;
          for (let vpn = vma.start; vpn < vma.end; vpn++) {
            assert.equal(vma.uffd !== 0, modes[vpn - DST] !== 0);
          }
        }
        assert.equal(covered, 16);
        assert.equal(space.totalVm, before.total);
      }
      yield* userfaultfd_close(k, t, ctx);
      assert.equal(space.mapCount, 1);
      assert.equal(space.dataVm, before.data);
      assert.equal(space.tree.first!.flags, before.flags);
    });
  });
  fc.assert(property, {numRuns: 40});
});

const EVENTS = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;

test('munmap, madvise and mremap wait until their event has been read', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 8);
    for (let n = 0; n < 8; n++) yield* store(k, t, DST + n, n);
    const ctx = yield* open(k, t, EVENTS);
    yield* register(k, t, ctx, DST, 8, MISSING);
    const seen: UffdMsg[] = [];
    let refused = 0;
    yield* thread(k, t, function* (c) {
      for (let n = 0; n < 4; n++) {
        while (ctx.mmapChanging === 0) yield* k.sched.userRun(c, 5_000);
        refused = Math.min(refused, yield* ioctl(k, c, ctx, UFFDIO_ZEROPAGE, DST, 1));
        yield* k.sched.userRun(c, 500_000);
        seen.push(yield* read(k, c, ctx));
      }
    });
    const since = k.machine.engine.now;
    yield* do_madvise(k, t, DST, 2, MADV_DONTNEED);
    assert.ok(k.machine.engine.now - since > 400_000, 'it waited');
    yield* sys_munmap(k, t, DST + 6, DST + 8);
    const to = yield* do_mremap(k, t, DST + 4, 2, 2, 3, SRC);
    assert.equal(to, SRC);
    const places = seen.map((m) => [
      m.event,
      m.vpn - DST,
      m.to - (m.event === UFFD_EVENT_REMAP ? SRC : DST),
    ]);
    assert.deepEqual(places, [
      [UFFD_EVENT_REMOVE, 0, 2],
      [UFFD_EVENT_UNMAP, 6, 8],
      [UFFD_EVENT_REMAP, 4, 0],
      [UFFD_EVENT_UNMAP, 4, 6],
    ]);
    assert.equal(refused, -11);
    assert.equal(ctx.mmapChanging, 0);
    assert.equal(t.mm!.user!.space.tree.lookup(SRC)!.uffd, ctx.id);
    assert.equal(yield* load(k, t, SRC + 1), 5);
  });
});

test('mremap without its event takes the new place out of userfaultfd', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2);
    yield* store(k, t, DST, 5);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, MISSING | WP);
    yield* ioctl(k, t, ctx, UFFDIO_WRITEPROTECT, DST, 2, 1);
    assert.equal(yield* do_mremap(k, t, DST, 2, 2, 3, SRC), SRC);
    assert.equal(t.mm!.user!.space.tree.lookup(SRC)!.uffd, 0);
    assert.equal(wordOf(k, t, SRC) & PTE_UFFD_WP, 0);
    assert.equal(yield* load(k, t, SRC), 5);
    assert.equal(yield* load(k, t, SRC + 1), 0);
  });
});
