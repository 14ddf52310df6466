import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from './generated.ts';
import {compileTrace} from './tracks.ts';
import {FaultEvidence} from './verify_faults.ts';
import {readRecorded, type Recorded} from './verify_record.ts';

const FILE = 0;
const ANON = 1;
const SWAP = 2;
const PAGE = 4096;
const ALL = 0xffffffffffffffffn;
const NR_EXECVE = 59;
const NR_CLONE = 56;

function recorded(write: (writer: TraceWriter) => void): Recorded {
  return readRecorded(
    compileTrace(
      traceFrom('test', (sink) => {
        const writer = new TraceWriter(sink, {source: 'perf-script'});
        write(writer);
        writer.finish();
      }),
    ),
  );
}

/** An exec of task 7: the image has mm_id 50, the old one 40; ends at time 100. */
function exec(w: TraceWriter): void {
  w.append(KIND.exec, 0, 7, 0, 0);
  w.append(KIND.rss_stat, 10, 7, 0, 50, 0, ANON, PAGE);
  w.append(KIND.rss_stat, 12, 7, 0, 40, 1, ANON, 11 * PAGE);
  w.append(KIND.rss_stat, 20, 7, 0, 40, 1, ANON, 10 * PAGE);
  w.append(KIND.rss_stat, 30, 7, 0, 40, 0, ANON, 0);
  w.append(KIND.map, 60, 7, 0, 0x1000, 0x1000, 0, 3, 2, 0);
  w.append(KIND.access, 70, 7, 0, 0x1000, 2, 0);
  w.append(KIND.rss_stat, 75, 7, 0, 50, 1, ANON, 2 * PAGE);
  w.append(KIND.sys_exit, 100, 7, 0, NR_EXECVE, 0);
}

test('an exec makes an address space that is known from its birth; the old one is not', () => {
  const {lives, samples, faults, unknownRecords, durations} = recorded(exec);
  const image = lives.find((life) => life.id === 50);
  const old = lives.find((life) => life.id === 40);
  assert.equal(image?.known, true);
  assert.equal(old?.known, false);
  assert.equal(unknownRecords, 3);
  const ofImage = samples.filter((sample) => sample.life === image);
  assert.deepEqual(
    ofImage.map(({op, change, pages}) => [op, change, pages]),
    [
      [0, 1, 1],
      [2, 1, 2],
    ],
  );
  assert.deepEqual(
    faults.map(({op, life, faultClass}) => [op, life, faultClass]),
    [[2, image, 'anon']],
  );
  const call = durations.find(({name}) => name === 'exec');
  assert.equal(call?.wallNs, 100);
  assert.equal(call?.lastOp, 2);
});

test('a fork of a known address space is known, and its counters are those with curr=0', () => {
  const {lives, samples} = recorded((w) => {
    exec(w);
    w.append(KIND.fork, 200, 7, 0, 8, 17, 8);
    w.append(KIND.rss_stat, 210, 7, 0, 60, 0, ANON, 2 * PAGE);
    w.append(KIND.sys_exit, 230, 7, 0, NR_CLONE, 8);
    w.append(KIND.access, 240, 8, 1, 0x1000, 6, 0);
    w.append(KIND.rss_stat, 245, 8, 1, 60, 1, ANON, 3 * PAGE);
  });
  const child = lives.find((life) => life.id === 60);
  assert.equal(child?.known, true);
  const steps = samples.filter((sample) => sample.life === child).map(({op, pages}) => [op, pages]);
  assert.deepEqual(steps, [
    [3, 2],
    [4, 3],
  ]);
});

test('overlapping operations on one counter are put one behind the other', () => {
  const {samples} = recorded((w) => {
    exec(w);
    w.append(KIND.fork, 200, 7, 0, 8, 0x10f00, 7); // a thread
    w.append(KIND.sys_exit, 230, 7, 0, NR_CLONE, 8);
    w.append(KIND.access, 300, 7, 0, 0x2000, 6, 0);
    w.append(KIND.access, 301, 8, 1, 0x3000, 6, 0);
    w.append(KIND.rss_stat, 302, 8, 1, 50, 1, ANON, 3 * PAGE);
    w.append(KIND.rss_stat, 303, 7, 0, 50, 1, ANON, 4 * PAGE);
  });
  const last = samples.slice(-2).map(({op, pages, change}) => [op, pages, change]);
  assert.deepEqual(last, [
    [4, 3, 1],
    [5, 4, 1],
  ]);
});

test('time runnable but not running is not part of a duration, and every record is counted', () => {
  const {durations} = recorded((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, PAGE);
    w.append(KIND.sched_switch, 100, 7, 0, 7, 0, 9);
    w.append(KIND.sched_switch, 900, 9, 0, 9, 1, 7);
    w.append(KIND.tlb_flush, 950, 7, 0, 1, 3);
    w.append(KIND.sys_exit, 1000, 7, 0, 11, 0);
  });
  assert.deepEqual(durations, [
    {op: 0, name: 'munmap', lastOp: 0, wallNs: 1000, preemptedNs: 800, sleptNs: 0, records: 2},
  ]);
});

test('two records of one vector tell what a record costs', () => {
  const {recordCostNs} = recorded((w) => {
    exec(w);
    w.append(KIND.munmap, 200, 7, 0, 0, PAGE);
    w.append(KIND.rss_stat, 210, 7, 0, 50, 1, FILE, 0);
    w.append(KIND.rss_stat, 1410, 7, 0, 50, 1, ANON, 0);
    w.append(KIND.sys_exit, 2000, 7, 0, 11, 0);
  });
  assert.equal(recordCostNs, 1200);
});

test('flushes are counted by reason and size', () => {
  const {flushes} = recorded((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, PAGE);
    w.append(KIND.tlb_flush, 5, 7, 0, ALL, 3);
    w.append(KIND.tlb_flush, 6, 7, 0, 7, 4);
  });
  assert.deepEqual(
    [...flushes],
    [
      ['local mm shootdown pages:all', 1],
      ['remote send ipi pages:n', 1],
    ],
  );
});

/** Class of a fault with these counter changes and flush. */
function classOf(errorCode: number, changes: readonly [number, number][], flush = false): string {
  const evidence = new FaultEvidence();
  for (const [member, pages] of changes) evidence.rss(member, pages);
  if (flush) evidence.flush(1, 3);
  return evidence.classOf((errorCode & 1) !== 0);
}

test('what the kernel says during a fault tells its class', () => {
  assert.equal(classOf(6, [[ANON, 1]]), 'anon');
  assert.equal(classOf(6, [[ANON, 512]]), 'huge');
  assert.equal(classOf(4, [[FILE, 16]]), 'file');
  assert.equal(classOf(4, [[FILE, 0]]), 'file');
  assert.equal(
    classOf(
      7,
      [
        [FILE, -1],
        [ANON, 1],
      ],
      true,
    ),
    'cow_file',
  );
  assert.equal(classOf(7, [[ANON, 1]], true), 'cow_zero');
  assert.equal(classOf(7, [], true), 'cow_anon');
  assert.equal(classOf(7, []), 'reuse');
  assert.equal(classOf(4, []), 'empty');
  assert.equal(classOf(6, [[3, 1]]), 'shmem');
  assert.equal(
    classOf(4, [
      [ANON, 1],
      [SWAP, -1],
    ]),
    'swap',
  );
});

test('pages reclaimed during a fault say nothing about it', () => {
  assert.equal(
    classOf(6, [
      [ANON, -1],
      [SWAP, 1],
      [ANON, -1],
      [SWAP, 1],
      [ANON, 1],
    ]),
    'anon',
  );
  assert.equal(
    classOf(4, [
      [ANON, -1],
      [SWAP, 1],
      [ANON, 1],
      [SWAP, -1],
    ]),
    'swap',
  );
});
