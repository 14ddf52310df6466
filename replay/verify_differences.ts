// Disagreements between recording and simulation, counted by cause, the first of them kept in full.

import {argBigInt} from '../formats/columns.ts';
import {KIND, KIND_BY_CODE} from '../formats/kinds.ts';
import type {CauseReport, DifferenceReport} from '../results/verify.ts';
import type {CompiledTrace} from './tracks.ts';

/** A bounded list. */
export class Differences {
  readonly list: DifferenceReport[] = [];
  private readonly causes = new Map<string, {count: number; first: number; shown: number}>();

  constructor(
    private readonly compiled: CompiledTrace,
    /** How many of each cause are kept. */
    private readonly perCause: number,
    private readonly limit: number,
  ) {}

  add(op: number, event: number, cause: string, expected: string, found: string): void {
    let entry = this.causes.get(cause);
    if (entry === undefined) {
      entry = {count: 0, first: event, shown: 0};
      this.causes.set(cause, entry);
    }
    entry.count++;
    if (entry.shown >= this.perCause || this.list.length >= this.limit) return;
    entry.shown++;
    const {compiled} = this;
    const {events} = compiled.trace;
    const track = compiled.tracks[compiled.opTrack[op]];
    this.list.push({
      event,
      time_ns: events.timeNs[event],
      tid: track.tid,
      comm: track.comm,
      operation: operationText(compiled, op),
      cause,
      expected,
      found,
    });
  }

  /** Most frequent first. */
  report(): CauseReport[] {
    return [...this.causes]
      .map(([cause, {count, first}]) => ({cause, count, first_event: first}))
      .sort((a, b) => b.count - a.count || a.first_event - b.first_event);
  }
}

/** An operation with its arguments, addresses in hex. */
export function operationText(compiled: CompiledTrace, op: number): string {
  const {events, strings} = compiled.trace;
  const i = compiled.opEvent[op];
  const spec = KIND_BY_CODE[events.kind[i]];
  if (spec === undefined) return String(events.kind[i]);
  const args = spec.args.map((name, k) => {
    const value = argBigInt(events, i, k);
    if (name.endsWith('_str')) return strings[Number(value)] ?? '';
    return value < 4096n ? value.toString() : `0x${value.toString(16)}`;
  });
  const shown = events.kind[i] === KIND.access ? args.slice(0, 2) : args;
  return `${spec.name} ${shown.join(' ')}`;
}
