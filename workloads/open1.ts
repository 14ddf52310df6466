// open1: will-it-scale's loop of open(2) and close(2) on a file of its own. Threads of one process
// share its files_struct, so each iteration takes files_struct.file_lock twice: in __alloc_fd and
// in __close_fd. Everything else (path walk, dentry and file allocation, RCU) is work outside that
// lock. In process mode each task has a lock of its own.
//
// The default times give one thread 1866 ns an iteration, the .536 operations per us that Alex
// Kogan published for one thread of his machine (LKML, 15 Jul 2019); only ratios to one thread are
// compared. The split of that time between the two holds and the rest is an assumption.

import {KIND} from '../formats/kinds.ts';
import {Stream} from './rng.ts';
import {CLONE, type Gate, type Script, type Stage} from './stage.ts';
import {THREAD_NS} from './nominal.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  tasks: number('count', 4, 1, 4096, 'threads or processes'),
  mode: choice(['threads', 'processes'], 'threads share files_struct.file_lock'),
  iterations: number('count', 1000, 1, 100_000_000, 'open and close pairs of each task'),
  alloc_hold: number('ns', 60, 0, 1e9, '__alloc_fd: time under the lock besides the lines'),
  close_hold: number('ns', 20, 0, 1e9, '__close_fd: time under the lock besides the lines'),
  embedded_fds: number('count', 64, 1, 1e6, 'fds that fit the table inside files_struct'),
  other_fds: number('count', 5, 0, 1e6, 'fds open besides those of the tasks'),
  start_spread: number('ns', 20_000, 0, 1e9, 'tasks start at random within this time'),
  open_outside: number('ns', 1186, 0, 1e9, 'rest of open(2)'),
  close_outside: number('ns', 600, 0, 1e9, 'rest of close(2)'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to pin over; 0: one per task'),
};

type Values = ValuesOf<typeof PARAMS>;

/**
 * Shared lines written under the lock besides its own, which holds next_fd. Up to 64 fds the
 * bitmaps are in the lock's line too, and close writes the line of the fd's slot; in a larger table
 * the bitmaps have lines of their own: open writes open_fds, close open_fds, full_fds_bits and the
 * slot (Linux 5.2, fs/file.c and include/linux/fdtable.h).
 */
function linesWritten(values: Values): {allocLines: number; closeLines: number} {
  const embedded = values.tasks + values.other_fds <= values.embedded_fds;
  return embedded ? {allocLines: 0, closeLines: 1} : {allocLines: 1, closeLines: 3};
}

/** The test case proper; will-it-scale pins every task. */
function taskScript(
  values: Values,
  lock: number,
  start: Gate,
  random: Stream,
  join?: Gate,
): Script {
  return function* (self) {
    const {alloc_hold, close_hold, open_outside, close_outside} = values;
    const {allocLines, closeLines} = linesWritten(values);
    const open = [lock, alloc_hold, allocLines, open_outside, 1, 0];
    const close = [lock, close_hold, closeLines, close_outside, 1, 0];
    yield self.pin();
    yield self.arrive(start);
    yield self.think(random.below(values.start_spread + 1));
    for (let i = 0; i < values.iterations; i++) {
      yield self.op(KIND.lock_section, alloc_hold + open_outside, ...open);
      yield self.op(KIND.lock_section, close_hold + close_outside, ...close);
    }
    if (join !== undefined) yield self.arrive(join);
    yield self.exit(join === undefined);
  };
}

/** Starts all threads, as will-it-scale's main does, and joins them. */
function mainScript(values: Values, seed: number, start: Gate, join: Gate): Script {
  return function* (self) {
    for (let i = 0; i < values.tasks; i++) {
      const script = taskScript(values, 1, start, new Stream(seed, 'open1', i), join);
      self.fork(script, THREAD_NS, CLONE.thread, i % cpus(values));
      yield;
    }
    yield self.arrive(join);
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.tasks : values.cpus;
}

export const open1 = defineWorkload({
  name: 'open1',
  summary: 'open and close in a loop: two acquisitions of files_struct.file_lock each time',
  imitates: 'will-it-scale open1_threads and open1_processes',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    const start = stage.gate(values.tasks);
    const comm = `open1_${values.mode}`.slice(0, 15);
    if (values.mode === 'threads') {
      stage.adopt({comm, cpu: 0}, mainScript(values, seed, start, stage.gate(values.tasks + 1)));
      return;
    }
    for (let i = 0; i < values.tasks; i++) {
      stage.adopt(
        {comm, cpu: i % cpus(values)},
        taskScript(values, i + 1, start, new Stream(seed, 'open1', i)),
      );
    }
  },
});
