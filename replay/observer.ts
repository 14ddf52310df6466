// Somebody who watches a replay operation by operation, as grading does. Watching changes nothing.

import type {Task} from '../kernel/task.ts';
import type {Outcome} from './bind/binding.ts';

/** Told about the operations of the first copy of the trace; a null observer costs a comparison. */
export interface ReplayObserver {
  /** Everything that the operation waited for has happened: it starts now. */
  began(t: Task, op: number): void;
  /** It is over after `ticks`. An exit ends when the last of the task has run. */
  ended(t: Task, op: number, ticks: number, outcome: Outcome): void;
}
