// Which tasks are still the recorder: perf and trace-cmd fork the process that becomes the recorded
// program, and some of its faults come before its exec. What it had mapped then is in no recording,
// and it is no part of the workload.

import type {EventColumns} from '../../formats/columns.ts';
import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';

/**
 * By task that is older than the recording: its first exec, an event. Made when first asked for,
 * once a trace.
 */
const STARTS = new WeakMap<EventColumns, Map<number, number>>();

/**
 * The first of exec, exit and being forked decides what a task is; -1 for those that are forked or
 * never exec.
 */
function startsOf(events: EventColumns): Map<number, number> {
  const starts = new Map<number, number>();
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i];
    const tid = kind === KIND.fork ? argNumber(events, i, 0) : events.tid[i];
    if (kind !== KIND.fork && kind !== KIND.exit && kind !== KIND.exec) continue;
    if (!starts.has(tid)) starts.set(tid, kind === KIND.exec ? i : -1);
  }
  return starts;
}

/**
 * True when event `i` is of a task that was there before the recording and has yet to exec the
 * recorded program.
 */
export function isBeforeProgram(events: EventColumns, i: number): boolean {
  let starts = STARTS.get(events);
  if (starts === undefined) {
    starts = startsOf(events);
    STARTS.set(events, starts);
  }
  const start = starts.get(events.tid[i]);
  return start !== undefined && i < start;
}
