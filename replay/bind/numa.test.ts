import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;
const MB = 2 ** 20;
const MS = 1e6;

type Write = (kind: number, ...args: number[]) => void;

/** Replays what `write` has one task do, which has 4 MB at AREA and runs on CPU 0 of node 0. */
function run(
  write: (op: Write, sysfs: (path: string, value: number) => void) => void,
  machine = '2s4c1t',
): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 8}});
    const op: Write = (kind, ...args) => w.append(kind, 0, 7, 0, ...args);
    w.task(7, 7, 1, 'numa');
    op(KIND.sched_setaffinity, 0);
    op(KIND.map, AREA, 4 * MB, 0, 3, 0x22, 0);
    write(op, (path, value) => op(KIND.sysfs_write, w.intern(path), w.intern(String(value))));
    op(KIND.exit, 1);
    w.finish();
  });
  return replayTrace(trace, {machine, kernel: '6.18', design: []});
}

/** One walk over `pages` pages, all 64 lines, one at a time. */
function walk(op: Write, pages: number, write = 0): void {
  op(KIND.walk_lines, AREA, pages, 1, write, 64, 1);
}

test('lines cost what the memory of their node costs; migrate_pages moves the pages', () => {
  const {
    counters,
    replay,
    simulated_ns: far,
  } = run((op) => {
    op(KIND.sched_setaffinity, 4);
    op(KIND.touch, AREA, 512, 1, 1);
    op(KIND.sched_setaffinity, 0);
    walk(op, 512);
  });
  assert.equal(replay.operations.failed + replay.operations.skipped, 0);
  assert.equal(counters.user_lines_remote, 512 * 64);
  assert.equal(counters.user_lines_local, undefined);
  const near = run((op) => {
    op(KIND.sched_setaffinity, 4);
    op(KIND.touch, AREA, 512, 1, 1);
    op(KIND.sched_setaffinity, 0);
    op(KIND.migrate_pages, AREA, 2 * MB, 0);
    walk(op, 512);
  });
  assert.equal(near.counters.user_lines_local, 512 * 64);
  assert.equal(near.counters.pgmigrate_success, 512);
  // 58.2 ns a line more from the other socket, and about 1 us a page to move it.
  const saved = far - near.simulated_ns;
  const lines = 512 * 64 * 58.2;
  assert.ok(saved > lines * 0.3 && saved < lines * 0.8, `${saved} of ${lines}`);
});

test('numa_scan makes pages fault; those of the other node come, with a second fault for a write', () => {
  const {counters} = run((op) => {
    op(KIND.sched_setaffinity, 4);
    op(KIND.touch, AREA, 100, 1, 1);
    op(KIND.sched_setaffinity, 0);
    op(KIND.migrate_pages, AREA + 4 * MB, PAGE, 0); // drains the batches
    op(KIND.numa_scan, AREA, 4 * MB);
    walk(op, 100, 1);
    walk(op, 100, 1);
  });
  assert.equal(counters.numa_pte_updates, 100);
  assert.equal(counters.numa_hint_faults, 100);
  assert.equal(counters.numa_hint_faults_local, undefined);
  assert.equal(counters.numa_pages_migrated, 100);
  assert.equal(counters.user_lines_local, 200 * 64);
});

test('mbind: bind, interleave, and moving what is elsewhere', () => {
  const {counters, replay} = run((op) => {
    op(KIND.mbind, AREA, MB, 2, 2); // MPOL_BIND to node 1
    op(KIND.mbind, AREA + MB, MB, 3, 3); // MPOL_INTERLEAVE over both
    op(KIND.touch, AREA, 768, 1, 1);
    walk(op, 256);
    op(KIND.walk_lines, AREA + MB, 256, 1, 0, 1, 1);
    op(KIND.walk_lines, AREA + 2 * MB, 256, 1, 0, 1, 1);
  });
  assert.equal(replay.operations.failed, 0);
  assert.equal(counters.user_lines_remote, 256 * 64 + 128);
  assert.equal(counters.user_lines_local, 128 + 256);
  const moved = run((op) => {
    op(KIND.touch, AREA, 256, 1, 1);
    op(KIND.mbind, AREA, MB, 2, 2);
    walk(op, 256);
  });
  assert.equal(moved.counters.user_lines_remote, 256 * 64);
  const bad = run((op) => op(KIND.mbind, AREA, MB, 2, 4));
  assert.equal(bad.replay.operations.failed, 1);
});

/** Walks remote memory for a while, under these settings. */
function balance(enabled: number, machine: string): RunReport {
  return run((op, sysfs) => {
    sysfs('/proc/sys/kernel/numa_balancing', enabled);
    sysfs('/sys/kernel/debug/sched/numa_balancing/scan_delay_ms', 5);
    sysfs('/proc/sys/kernel/numa_balancing_scan_period_min_ms', 5);
    sysfs('/sys/kernel/debug/sched/numa_balancing/scan_size_mb', 1);
    op(KIND.sched_setaffinity, machine === '2s4c1t' ? 4 : 1);
    op(KIND.touch, AREA, 1024, 1, 1);
    op(KIND.sched_setaffinity, 0);
    op(KIND.migrate_pages, AREA + 4 * MB, PAGE, 0);
    for (let n = 0; n < 10; n++) walk(op, 1024, 1);
    op(KIND.think, 10 * MS);
  }, machine);
}

test('balancing brings the memory; switched off, or on one node, nothing scans', () => {
  const {counters} = balance(1, '2s4c1t');
  assert.equal(counters.numa_pages_migrated, 1024);
  assert.ok(counters.user_lines_local > counters.user_lines_remote);
  const off = balance(0, '2s4c1t');
  assert.equal(off.counters.numa_pte_updates, undefined);
  assert.equal(off.counters.user_lines_local, undefined);
  const one = balance(1, '1s2c1t');
  assert.equal(one.counters.numa_pte_updates, undefined);
  assert.equal(one.counters.user_lines_remote, undefined);
});

test('a negative or absent node is skipped, with a warning', () => {
  const {replay, checks} = run((op) => op(KIND.migrate_pages, AREA, MB, 9));
  assert.equal(replay.operations.skipped, 1);
  assert.match(Object.keys(checks.warnings).join(), /node that the machine does not have/);
});

/** The migration selftest: threads use pages while another moves them to and fro. */
function moveWhileUsed(kernel: string, advice: number, access: number): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 8}});
    const threads = [8, 9, 10];
    w.task(7, 7, 1, 'migration');
    for (const tid of threads) w.task(tid, 7, 7, 'migration');
    w.append(KIND.map, 0, 7, 0, AREA, 4 * MB, 0, 3, 0x22, 0);
    w.append(KIND.madvise, 0, 7, 0, AREA, 4 * MB, advice);
    w.append(KIND.touch, 0, 7, 0, AREA, 1024, 1, 1);
    for (const tid of [7, ...threads]) w.append(KIND.barrier, 0, tid, 0, 1, 4);
    for (let n = 0; n < 20; n++) {
      w.append(KIND.migrate_pages, 0, 7, 0, AREA, 4 * MB, (n + 1) % 2);
      for (const tid of threads) w.append(KIND.walk_lines, 0, tid, 0, AREA, 1024, 1, access, 1, 1);
    }
    for (const tid of [...threads, 7]) w.append(KIND.exit, 0, tid, 0, 0);
    w.finish();
  });
  return replayTrace(trace, {machine: '2s4c1t', kernel, design: []});
}

for (const kernel of ['6.18', '5.5', '4.13']) {
  for (const [name, advice] of [
    ['small', 15],
    ['huge', 14],
  ] as const) {
    test(`migration selftest: every move succeeds, every access, too (${name}, ${kernel})`, () => {
      for (const access of [0, 1]) {
        const {counters, cpu, replay} = moveWhileUsed(kernel, advice, access);
        assert.ok(cpu.functions.migration_entry_wait > 0, 'no access met a page on the move');
        assert.equal(replay.operations.failed, 0);
        assert.equal(counters.pgmigrate_success, 20 * 1024);
        assert.equal(counters.pgmigrate_fail, undefined);
      }
    });
  }
}
