import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {AddressSpace} from '../mm/address_space.ts';
import {lru_add_drain_all} from '../mm/folio_lru.ts';
import {access, duplicate, FILE_RX, mapFile, type ProbeLog, runProcess} from '../mm/mm_testing.ts';
import {tearDown} from '../mm/mm_testing.ts';
import {vm_mmap} from '../mm/mmap.ts';
import {propsFor} from '../mm/mmap_prot.ts';
import {VM_MAYEXEC, VM_WRITE} from '../mm/vma_flags.ts';
import type {Task} from '../task.ts';
import {uprobesOf} from './uprobes.ts';

const BASE = 0x5_5555_0000;
const TEXT = FILE_RX | VM_MAYEXEC;

/** A process that has executed a page of a program; what `then` makes the probe hear. */
function withText(
  version: string,
  then: (k: Kernel, t: Task, file: AddressSpace, log: ProbeLog) => Code<unknown>,
): Kernel {
  return runProcess(function* (k, t, log) {
    const file = k.mm.files.create('file', 8);
    mapFile(k, t.mm!, BASE, 8, file, 0, TEXT);
    yield* access(k, t, BASE, false);
    log.take();
    yield* then(k, t, file, log);
  }, version);
}

const REPLACED = ['start __replace_page', 'FILE 7', 'ANON 1', 'flush 1 (3)', 'end __replace_page'];

test('up to 6.15 a breakpoint replaces the page, in a pair of one page', () => {
  withText('4.1', function* (k, t, file, log) {
    assert.equal(yield* uprobesOf(k).register(t, file, 8), 0);
    assert.deepEqual(log.take(), REPLACED);
    assert.equal(yield* uprobesOf(k).unregister(t, file, 8), 0);
    // Before 5.4 the instruction goes back into another private page.
    assert.deepEqual(log.take(), ['start __replace_page', 'flush 1 (3)', 'end __replace_page']);
  });
  withText('5.5', function* (k, t, file, log) {
    yield* uprobesOf(k).register(t, file, 8);
    assert.deepEqual(log.take(), REPLACED);
    yield* uprobesOf(k).unregister(t, file, 8);
    // Since 5.4 the private page goes, and the next fault finds the file's.
    assert.deepEqual(log.take(), [
      'start __replace_page',
      'ANON 0',
      'flush 1 (3)',
      'end __replace_page',
    ]);
    assert.equal(yield* access(k, t, BASE, false), 'minor file');
  });
});

test('since 6.16 the page becomes private by a fault, and only unregistering sends a pair', () => {
  withText('6.18', function* (k, t, file, log) {
    const {hooks} = k.mm;
    assert.equal(hooks.uprobe_mmap, null);
    yield* uprobesOf(k).register(t, file, 8);
    assert.deepEqual(log.take(), [
      'start wp_page_copy',
      'end wp_page_copy',
      'FILE 7',
      'ANON 1',
      'flush 1 (3)',
      'flush 1 (3)',
    ]);
    lru_add_drain_all(k, t);
    yield* uprobesOf(k).unregister(t, file, 8);
    assert.deepEqual(log.take(), [
      'start uprobe_write',
      'flush 1 (3)',
      'ANON 0',
      'end uprobe_write',
    ]);
    assert.equal(yield* access(k, t, BASE, false), 'minor file');
    assert.equal(hooks.uprobe_mmap, null);
  });
});

test('every process that maps the page has its own copy; writable mappings have none', () => {
  for (const version of ['5.5', '6.18']) {
    withText(version, function* (k, t, file) {
      const other = yield* duplicate(k, t, t.mm!);
      mapFile(k, t.mm!, BASE + 100, 8, file, 0, TEXT | VM_WRITE);
      yield* uprobesOf(k).register(t, file, 8);
      assert.equal(uprobesOf(k).installed, 2, version);
      assert.equal(t.mm!.user!.rss.counts[1], 1);
      assert.equal(other.user!.rss.counts[1], 1);
      lru_add_drain_all(k, t);
      yield* uprobesOf(k).unregister(t, file, 8);
      assert.equal(uprobesOf(k).removed, 2, version);
      assert.equal(other.user!.rss.counts[1], 0);
      yield* tearDown(k, t, other);
    });
  }
});

test('two breakpoints in one page: the page stays private until both are gone', () => {
  for (const version of ['5.5', '6.18']) {
    withText(version, function* (k, t, file) {
      const probes = uprobesOf(k);
      yield* probes.register(t, file, 8);
      yield* probes.register(t, file, 100);
      yield* probes.register(t, file, 100);
      assert.equal(probes.inPage(file, 0), 2);
      lru_add_drain_all(k, t);
      yield* probes.unregister(t, file, 8);
      assert.equal(t.mm!.user!.rss.counts[1], 1, version);
      yield* probes.unregister(t, file, 100);
      assert.equal(t.mm!.user!.rss.counts[1], 1, 'registered twice');
      lru_add_drain_all(k, t);
      yield* probes.unregister(t, file, 100);
      assert.equal(t.mm!.user!.rss.counts[1], 0, version);
      assert.equal(yield* probes.unregister(t, file, 100), -2);
    });
  }
});

test('a mapping made later gets the breakpoint with mmap', () => {
  withText('6.18', function* (k, t, file) {
    yield* uprobesOf(k).register(t, file, 4096 * 3);
    const props = propsFor(TEXT, file);
    const start = BASE + 64;
    const args = {start, fixed: true, pages: 8, pgoff: 0, props, populate: false};
    yield* vm_mmap(k, t, t.mm!, args);
    assert.equal(uprobesOf(k).installed, 2);
    assert.equal(t.mm!.user!.rss.counts[1], 2);
    assert.equal(yield* access(k, t, start + 3, false), 'none');
  });
});

test('kernels before 3.5 have no uprobes', () => {
  withText('2.6.32', function* (k, t, file) {
    assert.equal(yield* uprobesOf(k).register(t, file, 0), -38);
  });
});
