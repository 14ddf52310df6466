// Traces that use hugetlb and DAX: sizes of pools, MAP_HUGETLB with and without a size, files by
// name.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import {MAP_HUGE_1GB} from '../../kernel/mm/hugetlb_file.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const AREA = 0x7f00_0000_0000;
const MB = 2 ** 20;
const GB = 2 ** 30;
const PRIVATE_ANON = 0x22;
const SHARED_ANON = 0x21;
const HUGETLB = 0x40000;
const WRITE = 6;

interface Trace {
  op(kind: number, ...args: number[]): void;
  /** The child, tid 8, exits. */
  childExits(): void;
  write(path: string, value: number): void;
  /** mmap at `addr` of a file called `name`, or of nothing. */
  map(addr: number, len: number, flags: number, name?: string): void;
}

function run(
  write: (trace: Trace) => void,
  kernel = '6.18',
  design: readonly string[] = [],
): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 8}});
    const op = (kind: number, ...args: number[]): void => {
      w.append(kind, 0, 7, 0, ...args);
    };
    w.task(7, 7, 1, 'huge');
    write({
      op,
      childExits: () => w.append(KIND.exit, 0, 8, 1, 1),
      write: (path, value) => op(KIND.sysfs_write, w.intern(path), w.intern(String(value))),
      map(addr, len, flags, name) {
        if (name === undefined) op(KIND.mmap, addr, len, 3, flags, 2 ** 32 - 1, 0, addr);
        else op(KIND.map, addr, len, 0, 3, flags, w.intern(name));
      },
    });
    op(KIND.exit, 1);
    w.finish();
  });
  return replayTrace(trace, {machine: '2s4c1t', kernel, design: [...design]});
}

test('a pool by sysctl, MAP_HUGETLB, fork and exit: the pool is full again', () => {
  const {counters, replay} = run(({op, childExits, write, map}) => {
    write('/proc/sys/vm/nr_hugepages', 16);
    map(AREA, 8 * MB + 4096, PRIVATE_ANON | HUGETLB);
    op(KIND.touch, AREA, 5, 512, 1);
    op(KIND.fork, 8, 0x11, 0);
    op(KIND.touch, AREA, 5, 512, 1);
    childExits();
  });
  assert.equal(replay.operations.failed + replay.operations.skipped, 0);
  assert.equal(counters.huge_pages_total, 16);
  assert.equal(counters.huge_pages_free, 16);
  assert.equal(counters.huge_pages_rsvd, undefined);
  assert.ok((counters.huge_pages_peak_used ?? 0) >= 5);
});

test('1 GB pages by flag and by file; without a pool mmap fails', () => {
  const {counters, replay} = run(({op, write, map}) => {
    write('/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages', 2);
    map(AREA, GB, SHARED_ANON | HUGETLB | MAP_HUGE_1GB);
    op(KIND.access, AREA + 5 * MB, WRITE, 0);
    map(AREA + 4 * GB, GB, 1, '/dev/hugepages1G/guest');
    op(KIND.access, AREA + 4 * GB, WRITE, 0);
    map(AREA + 8 * GB, 2 * MB, PRIVATE_ANON | HUGETLB);
  });
  assert.equal(replay.operations.failed, 1);
  assert.equal(counters.huge_pages_1g_peak_used, 2);
  // The file keeps its page, the anonymous mapping's is free.
  assert.equal(counters.huge_pages_1g_free, 1);
});

test('files of DAX by name: a 1 GB leaf survives mprotect from 6.12 on', () => {
  const program = ({op, map}: Trace): void => {
    map(AREA, GB, 1, '/dev/dax0.0-1g');
    op(KIND.access, AREA + 5 * MB, WRITE, 0);
    op(KIND.mprotect, AREA, GB, 1);
    op(KIND.access, AREA + 5 * MB, 4, 0);
    map(AREA + 4 * GB, 8 * MB, 1, '/mnt/pmem/log');
    op(KIND.touch, AREA + 4 * GB, 2048, 1, 1);
  };
  const fixed = run(program);
  assert.equal(fixed.replay.operations.failed + fixed.replay.operations.skipped, 0);
  assert.equal(fixed.counters.bad_pud, undefined);
  assert.equal(run(program, '6.6').counters.bad_pud, 1);
  assert.equal(run(program, '6.18', ['pud=no-saved-dirty']).counters.shadow_stack_zaps, 1);
});
