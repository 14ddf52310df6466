// userfaultfd on anonymous memory: faults wait for their reader, fills and wakes, what is refused.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {runProcess} from '../mm/mm_testing.ts';
import {sys_munmap} from '../mm/mmap_unmap.ts';
import {
  sys_userfaultfd,
  userfaultfd_close,
  userfaultfd_ioctl,
  userfaultfd_read,
} from './userfaultfd_ioctl.ts';
import {
  DST,
  ioctl,
  load,
  mapAt,
  open,
  read,
  register,
  SRC,
  serveMissing,
  store,
  thread,
} from './userfaultfd_testing.ts';
import {
  featuresOf,
  O_NONBLOCK,
  UFFD_API,
  UFFD_FEATURE_SIGBUS,
  UFFD_USER_MODE_ONLY,
  UFFDIO_API,
  UFFDIO_COPY,
  UFFDIO_REGISTER,
  UFFDIO_UNREGISTER,
  UFFDIO_WAKE,
  UFFDIO_ZEROPAGE,
  type UffdMsg,
} from './userfaultfd_types.ts';

const MISSING = 1;
const EAGAIN = -11;
const EBUSY = -16;
const EEXIST = -17;
const EINVAL = -22;
const ENOENT = -2;

test('a fault waits until its page is copied in, and then finds the content', () => {
  runProcess(function* (k, t, log) {
    yield* mapAt(k, t, DST, 4);
    yield* mapAt(k, t, SRC, 4);
    for (let n = 0; n < 4; n++) yield* store(k, t, SRC + n, 10 + n);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, MISSING);
    let seen: UffdMsg[] = [];
    yield* thread(k, t, function* (c) {
      seen = yield* serveMissing(k, c, ctx, 2);
    });
    log.take();
    assert.equal(yield* load(k, t, DST + 1), 11);
    assert.equal(yield* load(k, t, DST + 1), 11);
    yield* store(k, t, DST + 3, 7);
    assert.equal(yield* load(k, t, DST + 3), 7);
    assert.deepEqual(
      seen.map((msg) => [msg.vpn - DST, msg.flags]),
      [
        [1, 0],
        [3, 1],
      ],
    );
    assert.ok(!log.take().some((line) => line.startsWith('start')), 'a fill notifies nobody');
    assert.equal(t.mm!.user!.rss.counts[1], 6);
    assert.ok(ctx.pending.length + ctx.faults.length === 0);
  });
});

test('the fault gives its lock up while it waits', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 4);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, MISSING);
    const other = yield* thread(k, t, function* (c) {
      yield* load(k, c, DST);
    });
    const msg = yield* read(k, t, ctx);
    assert.equal(msg.vpn, DST);
    // Needs mmap_lock for writing and the VMA without readers.
    assert.equal(yield* sys_munmap(k, t, DST + 2, DST + 4), 0);
    assert.equal(other.ended, false);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST, 1), 0);
    while (!other.ended) yield* k.sched.userRun(t, 10_000);
  });
});

test('before per-VMA locks could be used, mmap_lock is what is given up', () => {
  for (const version of ['6.6', '5.4']) {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 1);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, 1, MISSING);
      yield* thread(k, t, (c) => serveZeros(c));
      function* serveZeros(c: typeof t) {
        const msg = yield* read(k, c, ctx);
        yield* ioctl(k, c, ctx, UFFDIO_ZEROPAGE, msg.vpn, 1);
      }
      assert.equal(yield* load(k, t, DST), 0);
    }, version);
  }
});

test('UFFDIO_WAKE and closing let faults go on, which then find what they would have found', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, MISSING);
    const other = yield* thread(k, t, function* (c) {
      assert.equal(yield* load(k, c, DST), 0);
    });
    assert.equal((yield* read(k, t, ctx)).vpn, DST);
    yield* ioctl(k, t, ctx, UFFDIO_WAKE, DST, 1);
    // Nothing was put there: it faults again.
    assert.equal((yield* read(k, t, ctx)).vpn, DST);
    yield* userfaultfd_close(k, t, ctx);
    while (!other.ended) yield* k.sched.userRun(t, 10_000);
    assert.equal(t.mm!.user!.space.tree.lookup(DST)!.uffd, 0);
  });
});

test('what a fill refuses', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 4);
    yield* mapAt(k, t, SRC, 4);
    yield* store(k, t, SRC, 1);
    const ctx = yield* open(k, t);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST, 1, 0, SRC), ENOENT);
    yield* register(k, t, ctx, DST, 2, MISSING);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST, 1, 0, SRC), 0);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST, 1, 0, SRC), EEXIST);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST, 1), EEXIST);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST + 1, 2), ENOENT);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 1, 2, SRC), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 1, 4, SRC), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 0, 0, SRC), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 1, 0, SRC + 100), -14);
    // A source that is not there yet is faulted in with no lock held.
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 1, 0, SRC + 1), 0);
    assert.equal(yield* load(k, t, DST + 1), 0);
  });
});

test('a part of a fill is EAGAIN, and says how much', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 4);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, MISSING);
    yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST + 2, 1);
    const args = {start: DST, pages: 4, src: 0, mode: 0};
    const result = yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_ZEROPAGE, args);
    assert.deepEqual(result, {ret: EAGAIN, out: 2});
  });
});

test('registration: whole ranges, one context, splits and merges', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 8);
    const {space} = t.mm!.user!;
    const before = space.tree.first!.flags;
    const ctx = yield* open(k, t);
    const other = yield* open(k, t);
    yield* register(k, t, ctx, DST + 2, 3, MISSING);
    assert.equal(space.mapCount, 3);
    assert.equal(yield* ioctl(k, t, other, UFFDIO_REGISTER, DST, 8, MISSING), EBUSY);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST, 8, 0), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST, 8, 8), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST, 8, 4), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST + 64, 8, MISSING), EINVAL);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_UNREGISTER, DST, 8), 0);
    assert.equal(space.mapCount, 1);
    assert.equal(space.tree.first!.flags, before);
    assert.equal(space.totalVm, 8);
  });
});

test('UFFDIO_API comes first, once, and names what the kernel has', () => {
  for (const version of ['4.13', '5.4', '6.6', '6.18']) {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 1);
      const ctx = yield* sys_userfaultfd(k, t, 0);
      assert.ok(typeof ctx !== 'number');
      assert.equal(yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST, 1, MISSING), EINVAL);
      assert.equal(yield* userfaultfd_read(k, t, ctx), EINVAL);
      const wrong = {start: UFFD_API + 1, pages: 0, src: 0, mode: 0};
      assert.equal((yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_API, wrong)).ret, EINVAL);
      const unknown = {start: UFFD_API, pages: 0, src: 0, mode: 1 << 20};
      assert.equal((yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_API, unknown)).ret, EINVAL);
      const api = {start: UFFD_API, pages: 0, src: 0, mode: 0};
      const known = {ret: 0, out: featuresOf(version)};
      assert.deepEqual(yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_API, api), known);
      assert.equal((yield* userfaultfd_ioctl(k, t, ctx, UFFDIO_API, api)).ret, EINVAL);
    }, version);
  }
  assert.equal(featuresOf('6.18'), 2 ** 17 - 1);
  runProcess(function* (k, t) {
    assert.equal(yield* sys_userfaultfd(k, t, UFFD_USER_MODE_ONLY), EINVAL);
  }, '5.5');
  runProcess(function* (k, t) {
    assert.equal(yield* sys_userfaultfd(k, t, 0), -38);
  }, '4.1');
});

test('UFFD_FEATURE_SIGBUS: nobody waits, and a nonblocking read says EAGAIN', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 1);
    const ctx = yield* open(k, t, UFFD_FEATURE_SIGBUS, O_NONBLOCK);
    yield* register(k, t, ctx, DST, 1, MISSING);
    assert.equal(yield* load(k, t, DST), -1);
    assert.equal(yield* userfaultfd_read(k, t, ctx), EAGAIN);
    yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST, 1);
    assert.equal(yield* load(k, t, DST), 0);
  });
});
