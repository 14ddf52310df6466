// Which run a worker gets next. Results never depend on it, only how soon they are there:
//   1. a run of the trace that the worker has at hand, the first in the order asked for;
//   2. else of a trace that no worker has at hand, the longest first, so that the last to end is a
//     short one;
//   3. else of any trace: at the end, several workers share what is left.
// After a failure only runs before it are still handed out: one of them may fail too, and the first
// in the order asked for decides what the user reads, as it would in one thread.

/** Runs of one trace. */
interface Group {
  readonly key: string;
  /** Indices of jobs, ascending; those before `at` are handed out. */
  readonly jobs: number[];
  at: number;
  readonly guessMs: number;
  /** Workers that have its trace at hand. */
  workers: number;
}

/** What the schedule must know of a job. */
export interface Entry {
  readonly index: number;
  readonly key: string;
  readonly guessMs: number;
}

/** The runs that nobody has begun, by trace. Cost of a choice: the number of traces not done. */
export class Schedule {
  private groups: Group[];
  private readonly byKey = new Map<string, Group>();
  private end = Infinity;

  constructor(entries: readonly Entry[]) {
    for (const {index, key, guessMs} of entries) {
      const known = this.byKey.get(key);
      if (known === undefined)
        this.byKey.set(key, {key, jobs: [index], at: 0, guessMs, workers: 0});
      else known.jobs.push(index);
    }
    this.groups = [...this.byKey.values()].sort((a, b) => b.guessMs - a.guessMs);
  }

  /**
   * Index of the job for a worker whose last run was of trace `last` (null: it has none); null when
   * nothing is left.
   */
  next(last: string | null): number | null {
    const own = last === null ? undefined : this.byKey.get(last);
    if (own !== undefined && this.has(own)) return own.jobs[own.at++];
    if (own !== undefined) own.workers--;
    this.groups = this.groups.filter((group) => this.has(group));
    const group = this.groups.find(({workers}) => workers === 0) ?? this.groups[0];
    if (group === undefined) return null;
    group.workers++;
    return group.jobs[group.at++];
  }

  /** The job at `index` failed: those after it are not wanted any more. */
  failed(index: number): void {
    this.end = Math.min(this.end, index);
  }

  private has(group: Group): boolean {
    return group.at < group.jobs.length && group.jobs[group.at] < this.end;
  }
}
