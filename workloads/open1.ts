// open1: will-it-scale's loop of open(2) and close(2) on a file of its own. Threads of one process
// share its files_struct, so each iteration takes files_struct.file_lock twice: in __alloc_fd and
// in __close_fd. Everything else (path walk, dentry and file allocation, RCU) is work outside that
// lock. In process mode each task has a lock of its own.
//
// The default times give one thread 1866 ns an iteration, the .536 operations per us that Alex
// Kogan published for one thread of his machine (LKML, 15 Jul 2019); only ratios to one thread are
// compared. The split between the two holds and the lines that they touch is an assumption:
// __alloc_fd writes next_fd, the open_fds and close_on_exec bitmaps.

import {KIND} from '../formats/kinds.ts';
import {CLONE, type Gate, type Script, type Stage} from './stage.ts';
import {THREAD_NS} from './nominal.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  tasks: number('count', 4, 1, 4096, 'threads or processes'),
  mode: choice(['threads', 'processes'], 'threads share files_struct.file_lock'),
  iterations: number('count', 1000, 1, 100_000_000, 'open and close pairs of each task'),
  alloc_hold: number('ns', 60, 0, 1e9, '__alloc_fd: time under the lock besides the lines'),
  close_hold: number('ns', 20, 0, 1e9, '__close_fd: time under the lock besides the lines'),
  lines: number('count', 3, 0, 64, 'shared lines written under the lock by each'),
  open_outside: number('ns', 1186, 0, 1e9, 'rest of open(2)'),
  close_outside: number('ns', 600, 0, 1e9, 'rest of close(2)'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to pin over; 0: one per task'),
};

type Values = ValuesOf<typeof PARAMS>;

/** The test case proper; will-it-scale pins every task. */
function taskScript(values: Values, lock: number, start: Gate, join?: Gate): Script {
  return function* (self) {
    const {lines, alloc_hold, close_hold, open_outside, close_outside} = values;
    yield self.pin();
    yield self.arrive(start);
    for (let i = 0; i < values.iterations; i++) {
      const openNs = alloc_hold + open_outside;
      yield self.op(KIND.lock_section, openNs, lock, alloc_hold, lines, open_outside);
      const closeNs = close_hold + close_outside;
      yield self.op(KIND.lock_section, closeNs, lock, close_hold, lines, close_outside);
    }
    if (join !== undefined) yield self.arrive(join);
    yield self.exit(join === undefined);
  };
}

/** Starts all threads, as will-it-scale's main does, and joins them. */
function mainScript(values: Values, start: Gate, join: Gate): Script {
  return function* (self) {
    for (let i = 0; i < values.tasks; i++) {
      const script = taskScript(values, 1, start, join);
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
  script(stage: Stage, values) {
    const start = stage.gate(values.tasks);
    const comm = `open1_${values.mode}`.slice(0, 15);
    if (values.mode === 'threads') {
      stage.adopt({comm, cpu: 0}, mainScript(values, start, stage.gate(values.tasks + 1)));
      return;
    }
    for (let i = 0; i < values.tasks; i++) {
      stage.adopt({comm, cpu: i % cpus(values)}, taskScript(values, i + 1, start));
    }
  },
});
