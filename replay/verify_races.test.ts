import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from './generated.ts';
import {RacedCounter, racingChanges} from './verify_races.ts';

const ANON = 1;
const SWAP = 2;
const PAGE = 4096;
const HOG = 7;
const RECLAIMER = 8;

type Line =
  | readonly [tid: number, member: number, pages: number]
  | 'fault'
  | 'reclaims'
  | 'written';

/**
 * What code paths say of rss_stat records of one mm; 'fault' is one of HOG, 'reclaims' and
 * 'written' are RECLAIMER's.
 */
function expected(lines: readonly Line[]): (number | null)[] {
  const {events} = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script'});
    let time = 0;
    for (const line of lines) {
      time += 1000;
      if (line === 'fault') w.append(KIND.access, time, HOG, 0, 0x1000, 6, 0);
      else if (line === 'reclaims') w.append(KIND.access, time, RECLAIMER, 1, 0x9000, 6, 0);
      else if (line === 'written') w.append(KIND.vmscan_write_folio, time, RECLAIMER, 1, 5, 0);
      else w.append(KIND.rss_stat, time, line[0], 0, 50, 0, line[1], line[2] * PAGE);
    }
    w.append(KIND.vmscan_write_folio, time + 1000, RECLAIMER, 1, 5, 0);
    w.finish();
  });
  const changes = racingChanges(events, null)!;
  return lines.flatMap((line, i) =>
    typeof line === 'string' ? [] : [Number.isNaN(changes[i]) ? null : changes[i]],
  );
}

test('a fault beside a reclaimer: both records repeat the value, the paths tell them apart', () => {
  const changes = expected([
    [HOG, ANON, 100],
    'reclaims',
    'fault',
    [HOG, ANON, 100],
    [RECLAIMER, ANON, 100],
    [RECLAIMER, SWAP, 1],
    'written',
  ]);
  assert.deepEqual(changes, [null, 1, -1, 1]);
});

test('a pair whose records show nothing is a swap-in unless a flush or a write follows', () => {
  const before: Line[] = [
    [HOG, ANON, 100],
    [HOG, SWAP, 9],
  ];
  const pair = (tid: number): Line[] => [
    [tid, ANON, 100],
    [tid, SWAP, 9],
  ];
  assert.deepEqual(
    expected([...before, 'reclaims', ...pair(RECLAIMER), 'written']).slice(2),
    [-1, 1],
  );
  assert.deepEqual(expected([...before, 'fault', ...pair(HOG), 'fault']).slice(2), [1, -1]);
});

test('a vector of fork or unmapping is no pair', () => {
  const vector: Line[] = [
    [HOG, ANON, 104],
    [HOG, SWAP, 12],
  ];
  assert.deepEqual(expected(vector), [null, null]);
});

test('values that are late or early for a moment do not change what was done; those that stay do', () => {
  const counter = new RacedCounter(10);
  const steps: readonly (readonly [pages: number, expected: number, change: number])[] = [
    [11, 1, 1],
    // The other's -1 is in the value already, and not in its own record.
    [11, 1, 1],
    [11, -1, -1],
    // Printed late: three changes of others are not in it.
    [15, 1, 1],
    [13, 1, 1],
  ];
  for (const [pages, path, change] of steps) assert.equal(counter.change(pages, path), change);
  // Five records in a row that are two too high: the sum was wrong.
  const high = [16, 17, 18, 19].map((pages) => counter.change(pages, 1));
  assert.deepEqual(high, [1, 1, 1, 1]);
  assert.equal(counter.change(20, 1), 3);
  assert.equal(counter.change(600, 1), 580, 'a huge page is no race');
});

test('a recording without reclaim is taken as it is', () => {
  const {events} = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script'});
    w.append(KIND.rss_stat, 0, HOG, 0, 50, 0, ANON, PAGE);
    w.finish();
  });
  assert.equal(racingChanges(events, null), null);
});
