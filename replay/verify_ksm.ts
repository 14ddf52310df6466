// Counts what the model's ksmd does, beside what the recorded one did.

import type {Kernel} from '../kernel/kernel.ts';
import type {KsmTrace} from '../kernel/mm/ksm.ts';
import type {VerifyReport} from '../results/verify.ts';
import {type Background, backgroundOf} from './background.ts';
import type {CompiledTrace} from './tracks.ts';

/** ksmd's tracepoints here. */
export class KsmWatch implements KsmTrace {
  scans = 0;
  merges = 0;
  nodes = 0;
  zeros = 0;
  failed = 0;

  constructor(kernel: Kernel) {
    if (kernel.mm.ksm !== null) kernel.mm.ksm.trace = this;
  }

  scan(start: boolean): void {
    if (!start) this.scans++;
  }

  merge(first: boolean, zero: boolean, _user: unknown, _vpn: number, good: boolean): void {
    if (!good) this.failed++;
    else if (zero) this.zeros++;
    else {
      this.merges++;
      if (first) this.nodes++;
    }
  }
}

/** The part of the report on KSM; undefined where nothing of it was recorded. */
export function ksmPart(compiled: CompiledTrace, watch: KsmWatch): VerifyReport['ksm'] {
  const {ksm}: Background = backgroundOf(compiled);
  if (ksm === null) return undefined;
  const {pace, inferred} = ksm;
  const {recording, certain, placed, unplaced} = inferred;
  const ended = recording.scans.filter(({endNs}) => endNs < Number.POSITIVE_INFINITY).length;
  return {
    full_scans: {recorded: ended, simulated: watch.scans},
    merges: {recorded: recording.merged, simulated: watch.merges},
    ksm_pages: {recorded: recording.nodes, simulated: watch.nodes},
    zero_pages: {recorded: recording.zeros, simulated: watch.zeros},
    failed: {recorded: recording.failed, simulated: watch.failed},
    inferred: {
      pages_to_scan: pace.pagesToScan,
      sleep_ms: pace.sleepMs,
      max_page_sharing: pace.maxPageSharing,
      contents_certain: certain,
      contents_placed: placed,
      contents_unplaced: unplaced + recording.unknown,
    },
  };
}
