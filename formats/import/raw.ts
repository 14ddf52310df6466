// One line of a foreign text, taken apart but not yet understood, under names that are the same for
// every format.

/** An event as its source printed it. Reused from line to line. */
export interface RawEvent {
  comm: string;
  tid: number;
  /** -1: the source does not say. */
  tgid: number;
  cpu: number;
  /** The source's clock: whole seconds, and ns within the second. */
  seconds: number;
  nanos: number;
  /**
   * Tracepoint or record name without its group: `rss_stat`, `sys_enter_mmap`, `PERF_RECORD_MMAP2`.
   */
  name: string;
  payload: string;
  /** True for a record that the recorder made up before its start: it carries no time. */
  preamble: boolean;
}

/** What a line turned out to be. */
export type LineKind = 'event' | 'metadata' | 'malformed';

/** Takes one line apart into `out`. */
export type LineParser = (line: string, out: RawEvent, notes: SourceNotes) => LineKind;

/** What metadata lines say about the source. */
export interface SourceNotes {
  cpus: number;
  /** Events that were overwritten in the recorder's buffer before they could be read. */
  overwritten: number;
}

/** A RawEvent to be filled. */
export function rawEvent(): RawEvent {
  return {
    comm: '',
    tid: 0,
    tgid: -1,
    cpu: 0,
    seconds: 0,
    nanos: 0,
    name: '',
    payload: '',
    preamble: false,
  };
}

/** Digits after the decimal point of a time in seconds, as ns. */
export function fractionNanos(digits: string): number {
  return digits.length === 6 ? Number(digits) * 1000 : Number(digits.padEnd(9, '0').slice(0, 9));
}
