// Reservations, faults, copies and shared page tables of hugetlb, with the counts of /proc/meminfo
// that the kernel's documentation (hugetlbfs_reserv, hugetlbpage) and selftests (hugetlb-madvise,
// hugepage-mremap) give after each step: total, free, reserved, surplus.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {sys_wait4} from '../exit.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FOLL_PIN, FOLL_WRITE, get_user_page, unpin_user_page} from './gup.ts';
import {hugetlb_file_setup, hugetlbfs_evict_inode} from './hugetlb_inode.ts';
import {set_max_huge_pages} from './hugetlb_pool.ts';
import {
  child,
  counts,
  H,
  mapHuge,
  NORESERVE,
  PRIVATE,
  SHARED,
  until,
  withPool,
} from './hugetlb_testing.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED, MADV_REMOVE} from './madvise_numbers.ts';
import {access} from './mm_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {do_truncate, punch_hole} from './truncate.ts';

const BASE = 2 ** 31;
const GB = 2 ** 18;

function notified(lines: readonly string[]): string[] {
  return lines.filter((line) => /^(start|end)/.test(line));
}

function usage(t: Task): number {
  return t.mm!.user!.hugetlbUsage;
}

function rssOf(k: Kernel, t: Task): number[] {
  return [...k.mm.userOf(t.mm!).rss.counts];
}

function freePages(k: Kernel): number {
  return k.mm.zones.reduce((sum, zone) => sum + zone.buddy.freePages, 0);
}

test('a pool grows node by node and gives its memory back', () => {
  withPool(0, function* (k, t) {
    const {default: h} = k.mm.hugetlb;
    const before = freePages(k);
    assert.equal(set_max_huge_pages(k, t, h, 20), 20);
    assert.deepEqual(counts(k), [20, 20, 0, 0]);
    assert.deepEqual(h.nr, [10, 10]);
    assert.equal(before - freePages(k), 20 * H);
    assert.equal(set_max_huge_pages(k, t, h, 5), 5);
    assert.deepEqual(counts(k), [5, 5, 0, 0]);
    const [, gigantic] = k.mm.hugetlb.hstates;
    assert.equal(set_max_huge_pages(k, t, gigantic, 2), 2);
    assert.deepEqual(gigantic.nr, [1, 1]);
    set_max_huge_pages(k, t, gigantic, 0);
    set_max_huge_pages(k, t, h, 0);
    k.mm.zones.forEach((zone) => {
      for (let cpu = 0; cpu < k.machine.topology.cpuCount; cpu++)
        zone.pcp.drain(cpu, zone.pcp.count[cpu]);
    });
    assert.ok(freePages(k) >= before);
    yield* k.sched.userRun(t, 1);
  });
});

test('private: reserved by mmap, consumed by faults, given back by munmap; rss does not move', () => {
  withPool(10, function* (k, t) {
    const rss = rssOf(k, t);
    assert.equal(yield* mapHuge(k, t, BASE, 4, PRIVATE), BASE);
    assert.deepEqual(counts(k), [10, 10, 4, 0]);
    assert.equal(yield* access(k, t, BASE + 700, true), 'huge');
    assert.deepEqual(counts(k), [10, 9, 3, 0]);
    assert.equal(yield* access(k, t, BASE + H, false), 'none');
    assert.equal(yield* access(k, t, BASE + 2 * H, false), 'huge');
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    assert.equal(yield* access(k, t, BASE + 2 * H, true), 'reuse');
    assert.equal(usage(t), 2 * H);
    assert.equal(yield* sys_munmap(k, t, BASE, BASE + 4 * H), 0);
    assert.deepEqual(counts(k), [10, 10, 0, 0]);
    assert.equal(usage(t), 0);
    assert.deepEqual(rssOf(k, t), rss);
  });
});

test('shared: a file keeps pages and reservations until it goes', () => {
  withPool(10, function* (k, t) {
    const file = hugetlb_file_setup(k, k.mm.hugetlb.default, 4 * H);
    yield* mapHuge(k, t, BASE, 4, SHARED, file);
    assert.deepEqual(counts(k), [10, 10, 4, 0]);
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + H, false);
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    // A second mapping of the same pages reserves nothing more.
    yield* mapHuge(k, t, BASE + GB, 4, SHARED, file);
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    assert.equal(yield* access(k, t, BASE + GB, true), 'huge');
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    yield* sys_munmap(k, t, BASE, BASE + 4 * H);
    yield* sys_munmap(k, t, BASE + GB, BASE + GB + 4 * H);
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    assert.equal(yield* punch_hole(k, t, file, 0, H + 5), 0);
    assert.deepEqual(counts(k), [10, 9, 2, 0]);
    hugetlbfs_evict_inode(k, t, file);
    assert.deepEqual(counts(k), [10, 10, 0, 0]);
    yield* mapHuge(k, t, BASE, 3, SHARED);
    yield* access(k, t, BASE, true);
    assert.deepEqual(counts(k), [10, 9, 2, 0]);
    yield* sys_munmap(k, t, BASE, BASE + 3 * H);
    assert.deepEqual(counts(k), [10, 10, 0, 0]);
  });
});

test('MAP_NORESERVE takes what is left and gets SIGBUS when nothing is; reservations are safe from it', () => {
  withPool(3, function* (k, t) {
    yield* mapHuge(k, t, BASE, 2, PRIVATE);
    yield* mapHuge(k, t, BASE + GB, 4, PRIVATE | NORESERVE);
    assert.deepEqual(counts(k), [3, 3, 2, 0]);
    assert.equal(yield* access(k, t, BASE + GB, true), 'huge');
    assert.equal(yield* access(k, t, BASE + GB + H, true), 'sigbus');
    assert.deepEqual(counts(k), [3, 2, 2, 0]);
    assert.equal(yield* access(k, t, BASE, true), 'huge');
    assert.equal(yield* access(k, t, BASE + H, true), 'huge');
    assert.deepEqual(counts(k), [3, 0, 0, 0]);
    assert.equal(yield* mapHuge(k, t, BASE + 2 * GB, 1, SHARED), -12);
  });
});

test('overcommit: surplus pages come with the reservation and go with it', () => {
  withPool(2, function* (k, t) {
    const {default: h} = k.mm.hugetlb;
    h.nrOvercommit = 2;
    assert.equal(yield* mapHuge(k, t, BASE, 5, PRIVATE), -12);
    assert.deepEqual(counts(k), [2, 2, 0, 0]);
    assert.equal(yield* mapHuge(k, t, BASE, 4, PRIVATE), BASE);
    assert.deepEqual(counts(k), [4, 4, 4, 2]);
    for (let n = 0; n < 4; n++) yield* access(k, t, BASE + n * H, true);
    assert.deepEqual(counts(k), [4, 0, 0, 2]);
    yield* sys_munmap(k, t, BASE, BASE + 4 * H);
    assert.deepEqual(counts(k), [2, 2, 0, 0]);
    // Without reservation the fault itself takes a surplus page.
    yield* mapHuge(k, t, BASE, 3, PRIVATE | NORESERVE);
    for (let n = 0; n < 3; n++) yield* access(k, t, BASE + n * H, true);
    assert.deepEqual(counts(k), [3, 0, 0, 1]);
    // A pool that is made smaller than what is in use turns the rest into surplus.
    set_max_huge_pages(k, t, h, 0);
    assert.deepEqual(counts(k), [3, 0, 0, 3]);
    yield* sys_munmap(k, t, BASE, BASE + 3 * H);
    assert.deepEqual(counts(k), [0, 0, 0, 0]);
  });
});

test('fork: CLEAR over the VMA, the child copies what it writes', () => {
  withPool(4, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 2, PRIVATE);
    yield* access(k, t, BASE, true);
    log.take();
    let go = false;
    const c = yield* child(k, t, function* (c) {
      yield* until(k, c, () => go);
      assert.equal(yield* access(k, c, BASE + 5, false), 'none');
      assert.equal(yield* access(k, c, BASE + 5, true), 'cow');
    });
    assert.deepEqual(notified(log.take()), [
      'start copy_hugetlb_page_range',
      'end copy_hugetlb_page_range',
    ]);
    go = true;
    yield* until(k, t, () => c.done);
    yield* sys_wait4(k, t, -1, 0);
    assert.ok(notified(log.take()).includes('start hugetlb_wp'));
    assert.deepEqual(counts(k), [4, 3, 1, 0]);
    // Alone again: the page is the parent's, nothing is copied.
    assert.equal(yield* access(k, t, BASE, true), 'reuse');
    yield* sys_munmap(k, t, BASE, BASE + 2 * H);
    assert.deepEqual(counts(k), [4, 4, 0, 0]);
  });
});

test('the owner’s copy takes the page from the child when the pool is empty; the child is killed', () => {
  withPool(1, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 1, PRIVATE);
    yield* access(k, t, BASE, true);
    let go = false;
    let seen = '';
    const c = yield* child(k, t, function* (c) {
      yield* until(k, c, () => go);
      seen = yield* access(k, c, BASE, false);
    });
    log.take();
    assert.equal(yield* access(k, t, BASE, true), 'reuse');
    assert.deepEqual(notified(log.take()), [
      'start unmap_hugepage_range',
      'end unmap_hugepage_range',
    ]);
    go = true;
    yield* until(k, t, () => c.done);
    assert.equal(seen, 'sigbus');
    yield* sys_wait4(k, t, -1, 0);
    yield* sys_munmap(k, t, BASE, BASE + H);
    assert.deepEqual(counts(k), [1, 1, 0, 0]);
  });
});

test('a child without a page left gets SIGBUS, the parent keeps his', () => {
  withPool(1, function* (k, t) {
    yield* mapHuge(k, t, BASE, 1, PRIVATE);
    yield* access(k, t, BASE, true);
    let seen = '';
    yield* child(k, t, function* (c) {
      seen = yield* access(k, c, BASE, true);
    });
    yield* sys_wait4(k, t, -1, 0);
    assert.equal(seen, 'sigbus');
    assert.equal(yield* access(k, t, BASE, false), 'none');
    assert.deepEqual(counts(k), [1, 0, 0, 0]);
  });
});

test('a pinned page is copied by fork itself', () => {
  withPool(4, function* (k, t) {
    yield* mapHuge(k, t, BASE, 1, PRIVATE);
    yield* access(k, t, BASE, true);
    const vma = t.mm!.user!.space.tree.lookup(BASE)!;
    const pfn = yield* get_user_page(k, t, t.mm!, vma, BASE + 3, FOLL_WRITE | FOLL_PIN);
    assert.ok(pfn > 0);
    yield* child(k, t, function* (c) {
      assert.equal(yield* access(k, c, BASE, true), 'none');
    });
    assert.equal(yield* access(k, t, BASE, true), 'none');
    yield* sys_wait4(k, t, -1, 0);
    unpin_user_page(k, t, pfn);
    yield* sys_munmap(k, t, BASE, BASE + H);
    assert.deepEqual(counts(k), [4, 4, 0, 0]);
  });
});

test('hugetlb-madvise: DONTNEED from 5.18 on, whole huge pages, length rounded down', () => {
  withPool(10, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 4, PRIVATE);
    for (let n = 0; n < 4; n++) yield* access(k, t, BASE + n * H, true);
    assert.deepEqual(counts(k), [10, 6, 0, 0]);
    assert.equal(yield* do_madvise(k, t, BASE + 1, 4 * H - 1, MADV_DONTNEED), -22);
    log.take();
    assert.equal(yield* do_madvise(k, t, BASE, 3 * H + 1, MADV_DONTNEED), 0);
    assert.deepEqual(notified(log.take()), [
      'start zap_page_range_single',
      'end zap_page_range_single',
    ]);
    // All but the last page are free, and reserved for this mapping again.
    assert.deepEqual(counts(k), [10, 9, 3, 0]);
    assert.equal(yield* access(k, t, BASE, true), 'huge');
    assert.deepEqual(counts(k), [10, 8, 2, 0]);
    yield* sys_munmap(k, t, BASE, BASE + 4 * H);
    assert.deepEqual(counts(k), [10, 10, 0, 0]);
    // A file's pages stay with the file.
    yield* mapHuge(k, t, BASE, 2, SHARED);
    yield* access(k, t, BASE, true);
    assert.equal(yield* do_madvise(k, t, BASE, 2 * H, MADV_DONTNEED), 0);
    assert.deepEqual(counts(k), [10, 9, 1, 0]);
    yield* sys_munmap(k, t, BASE, BASE + 2 * H);
  });
  withPool(
    2,
    function* (k, t) {
      yield* mapHuge(k, t, BASE, 1, PRIVATE);
      assert.equal(yield* do_madvise(k, t, BASE, H, MADV_DONTNEED), -22);
    },
    '5.5',
  );
});

test('hugepage-mremap: moves pages, refuses to grow, and parts of huge pages', () => {
  withPool(10, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 3, PRIVATE);
    for (let n = 0; n < 3; n++) yield* access(k, t, BASE + n * H, true);
    const {pt} = k.mm;
    const before = pt.entries[walkSlot(t.mm!.user!.pgd, BASE + H)];
    log.take();
    const to = BASE + 16 * H;
    const flags = MREMAP_FIXED | MREMAP_MAYMOVE;
    assert.equal(yield* do_mremap(k, t, BASE, 3 * H, 3 * H, flags, to), to);
    assert.deepEqual(notified(log.take()).slice(0, 2), [
      'start move_hugetlb_page_tables',
      'end move_hugetlb_page_tables',
    ]);
    assert.equal(pt.entries[walkSlot(t.mm!.user!.pgd, to + H)], before);
    assert.deepEqual(counts(k), [10, 7, 0, 0]);
    assert.equal(yield* do_mremap(k, t, to, 3 * H, 4 * H, MREMAP_MAYMOVE, 0), -14);
    assert.equal(yield* sys_munmap(k, t, to + 5, to + H), -22);
    assert.equal(yield* do_mprotect(k, t, to, H + 1, 1), -22);
    assert.equal(yield* do_mprotect(k, t, to, H, 1), 0);
    assert.equal(yield* access(k, t, to, true), 'sigsegv');
    assert.equal(yield* access(k, t, to + H, true), 'none');
    yield* sys_munmap(k, t, to, to + 3 * H);
    assert.deepEqual(counts(k), [10, 10, 0, 0]);
  });
});

test('page tables of whole GBs are shared until a VMA is split, changed or zapped', () => {
  const k = withPool(8, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 1024, SHARED | NORESERVE);
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + GB, true);
    const {pt} = k.mm;
    let go = false;
    let ready = false;
    const ranges: string[] = [];
    const c = yield* child(k, t, function* (c) {
      const own = pt.used;
      assert.equal(yield* access(k, c, BASE + 3, true), 'spurious');
      assert.equal(yield* access(k, c, BASE + GB, false), 'spurious');
      // One PUD table; the PMD tables are the parent's.
      assert.equal(pt.used - own, 1);
      assert.equal(c.mm!.user!.pgd.tables[1], 2);
      // What one faults in, the other finds.
      assert.equal(yield* access(k, c, BASE + 4 * H, true), 'huge');
      ready = true;
      yield* until(k, c, () => go);
      Object.assign(log, {
        notifier(_mm: unknown, name: string, _e: number, site: string, start: number, end: number) {
          if (name === 'start') ranges.push(`${site} ${(start - BASE) / H}..${(end - BASE) / H}`);
        },
      });
      assert.equal(yield* do_madvise(k, c, BASE + 5 * H, H, MADV_DONTNEED), 0);
      assert.equal(c.mm!.user!.pgd.tables[1], 1);
      assert.equal(yield* access(k, c, BASE + 4 * H, true), 'spurious');
      assert.equal(yield* do_mprotect(k, c, BASE, H, 1), 0);
      assert.equal(yield* access(k, c, BASE + 4 * H, true), 'huge');
      assert.equal(yield* do_mprotect(k, c, BASE + GB, GB, 1), 0);
      assert.equal(yield* access(k, c, BASE + GB, true), 'sigsegv');
    });
    yield* until(k, t, () => ready);
    assert.equal(yield* access(k, t, BASE + 4 * H, true), 'none');
    assert.deepEqual(counts(k), [8, 5, 0, 0]);
    go = true;
    yield* until(k, t, () => c.done);
    assert.deepEqual(ranges.slice(0, 4), [
      // One page of a table that may be shared: all of its GB.
      'zap_page_range_single 0..512',
      // A split inside a GB unshares it first; the new VMA spans no GB.
      'hugetlb_unshare_pmds 0..512',
      'hugetlb_change_protection 0..1',
      'hugetlb_change_protection 512..1024',
    ]);
    yield* sys_wait4(k, t, -1, 0);
    assert.equal(yield* access(k, t, BASE + 4 * H, true), 'none');
    yield* sys_munmap(k, t, BASE, BASE + 2 * GB);
    assert.deepEqual(counts(k), [8, 8, 0, 0]);
  });
  assert.deepEqual(k.checks.findings, []);
});

test('1 GB pages: one PUD entry, no surplus', () => {
  withPool(0, function* (k, t) {
    const [, h] = k.mm.hugetlb.hstates;
    set_max_huge_pages(k, t, h, 1);
    h.nrOvercommit = 4;
    yield* mapHuge(k, t, BASE, 1, PRIVATE, null, h);
    assert.deepEqual(counts(k, h), [1, 1, 1, 0]);
    assert.equal(yield* access(k, t, BASE + 100_000, true), 'huge');
    assert.equal(k.mm.pt.level[walkSlot(t.mm!.user!.pgd, BASE) >>> 9], 2);
    assert.equal(usage(t), GB);
    assert.equal(yield* mapHuge(k, t, BASE + 4 * GB, 1, PRIVATE, null, h), -12);
    assert.equal(yield* sys_munmap(k, t, BASE, BASE + 512), -22);
    assert.equal(yield* sys_munmap(k, t, BASE, BASE + GB), 0);
    assert.deepEqual(counts(k, h), [1, 1, 0, 0]);
  });
});

test('truncation takes pages out from under mappings, with a CLEAR pair for each', () => {
  withPool(6, function* (k, t, log) {
    const file = hugetlb_file_setup(k, k.mm.hugetlb.default, 4 * H);
    yield* mapHuge(k, t, BASE, 4, SHARED, file);
    yield* mapHuge(k, t, BASE + GB, 4, SHARED, file);
    for (let n = 0; n < 4; n++) {
      yield* access(k, t, BASE + n * H, true);
      yield* access(k, t, BASE + GB + n * H, false);
    }
    assert.deepEqual(counts(k), [6, 2, 0, 0]);
    assert.equal(usage(t), 8 * H);
    log.take();
    assert.equal(yield* do_truncate(k, t, file, 2 * H), 0);
    const pair = ['start unmap_hugepage_range', 'end unmap_hugepage_range'];
    assert.deepEqual(notified(log.take()), [...pair, ...pair]);
    assert.equal(usage(t), 4 * H);
    assert.deepEqual(counts(k), [6, 4, 0, 0]);
    assert.equal(yield* access(k, t, BASE + 2 * H, false), 'sigbus');
    assert.equal(yield* do_madvise(k, t, BASE, H, MADV_REMOVE), 0);
    assert.deepEqual(counts(k), [6, 5, 0, 0]);
    assert.equal(yield* access(k, t, BASE + GB, true), 'huge');
    assert.deepEqual(counts(k), [6, 4, 0, 0]);
  });
});
