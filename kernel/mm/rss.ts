// Resident-set counters of an mm: the four numbers that a kernel reports with every change as the
// trace event rss_stat, and that a replay is graded on.

export const MM_FILEPAGES = 0;
export const MM_ANONPAGES = 1;
export const MM_SWAPENTS = 2;
export const MM_SHMEMPAGES = 3;
export const NR_MM_COUNTERS = 4;

/** Called after a change: the counter and its new value in bytes, as in the trace event. */
export type RssStatHook = (mmId: number, member: number, sizeBytes: number) => void;

/** Counters of one mm, in pages. */
export class RssCounters {
  readonly counts = new Float64Array(NR_MM_COUNTERS);
  /** hiwater_rss in pages. */
  hiwater = 0;

  constructor(
    readonly mmId: number,
    /** Null when nobody listens. */
    public hook: RssStatHook | null = null,
  ) {}

  /** add_mm_counter and its kind: one call is one rss_stat event. */
  add(member: number, pages: number): void {
    this.counts[member] += pages;
    if (this.hook !== null) this.hook(this.mmId, member, Math.max(this.counts[member], 0) * 4096);
  }

  /** get_mm_rss: file, anonymous and shared memory. */
  get rss(): number {
    const {counts} = this;
    return counts[MM_FILEPAGES] + counts[MM_ANONPAGES] + counts[MM_SHMEMPAGES];
  }

  /** update_hiwater_rss: called before pages go. */
  updateHiwater(): void {
    this.hiwater = Math.max(this.hiwater, this.rss);
  }
}
