// What a replay is told besides its operations: changes that no operation of the trace asks for and
// that the recording shows all the same, as reclaim is.

import type {Task} from '../kernel/task.ts';
import type {Code} from '../machine/process.ts';

/** Asked around every operation of the first copy; null costs a comparison. */
export interface Steering {
  /** `op` is due: returns when it may begin. */
  before(t: Task, op: number): Code;
  /** `op` is over, but nobody has been told yet. */
  after(t: Task, op: number): Code;
  /** True for an operation beside which others go on even in total order. */
  outlasts(op: number): boolean;
}
