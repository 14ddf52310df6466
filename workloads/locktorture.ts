// locktorture: the kernel's own lock torture test on a spinlock, n writers. Each acquisition draws
// its delay under the lock as torture_spin_lock_write_delay does: 100 ms with probability 1/(200000
// n), 2 us with probability 1/(4 n). In the mean that is 1000/n ns, half of it from delays so rare
// that a short run meets none or one; `long_split` trades each long delay for `long_split` times as
// many that are as much shorter, which keeps the mean and calms the noise.

import {KIND} from '../formats/kinds.ts';
import {Stream} from './rng.ts';
import type {Gate, Script, Stage} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const SHORT_NS = 2_000;
const LONG_NS = 100_000_000;
/** The writer loop sleeps one jiffy in 2^20 rounds; HZ=1000 is an assumption. */
const JIFFY_NS = 1_000_000;
const JIFFY_ODDS = 2 ** 20;
/** Id of the lock under test in the trace. */
const LOCK = 1;

const PARAMS = {
  writers: number('count', 4, 1, 4096, 'writer threads (nwriters_stress)'),
  acquisitions: number('count', 1000, 1, 100_000_000, 'acquisitions of each writer'),
  lines: number(
    'count',
    3,
    0,
    64,
    'shared lines written under the lock: random state, lock_is_write_held, statistics',
  ),
  outside_lines: number('count', 1, 0, 64, 'of these, written outside the lock too: random state'),
  start_spread: number('ns', 20_000, 0, 1e9, 'writers start at random within this time'),
  hold: number('ns', 0, 0, 1e9, 'time under the lock besides the delay and the lines'),
  outside: number('ns', 50, 0, 1e9, 'work between acquisitions: torture_random, stutter_wait'),
  delays: choice(['kernel', 'none'], 'none: no delay under the lock'),
  long_split: number('count', 1, 1, 100_000, 'shorter and more frequent long delays, same mean'),
  placement: choice(['pinned', 'free'], 'pinned: writer i runs on CPU i'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread or pin over; 0: one per writer'),
};

type Values = ValuesOf<typeof PARAMS>;

/** Time under the lock of one acquisition. */
function holdNs(values: Values, random: Stream): number {
  if (values.delays === 'none') return values.hold;
  let total = values.hold;
  const longOdds = values.long_split / (values.writers * 200_000);
  if (random.chance(longOdds)) total += Math.round(LONG_NS / values.long_split);
  if (random.chance(1 / (4 * values.writers))) total += SHORT_NS;
  return total;
}

function writerScript(values: Values, index: number, start: Gate, seed: number): Script {
  return function* (self) {
    const random = new Stream(seed, 'locktorture', index);
    if (values.placement === 'pinned') yield self.pin();
    yield self.arrive(start);
    yield self.think(random.below(values.start_spread + 1));
    for (let i = 0; i < values.acquisitions; i++) {
      if (random.below(JIFFY_ODDS) === 0) yield self.sleep(JIFFY_NS);
      const hold = holdNs(values, random);
      const {lines, outside, outside_lines} = values;
      const args = [LOCK, hold, lines, outside, 0, outside_lines];
      yield self.op(KIND.lock_section, hold + outside, ...args);
    }
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.writers : values.cpus;
}

export const locktorture = defineWorkload({
  name: 'locktorture',
  summary: 'writers that take one spinlock in a loop with random delays under it',
  imitates: 'kernel/locking/locktorture.c, torture_type=spin_lock (v5.2)',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    const start = stage.gate(values.writers);
    for (let i = 0; i < values.writers; i++) {
      const init = {comm: 'lock_torture_wr', cpu: i % cpus(values)};
      stage.adopt(init, writerScript(values, i, start, seed));
    }
  },
});
