// What the kernel's own threads do in a replay. A recording shows ksmd and khugepaged at work, but nobody recorded who set them up, and
// the contents that ksmd compares: both are inferred once for each trace. Generated traces set up and state everything themselves.

import type {Kernel} from '../kernel/kernel.ts';
import {KSMD_TID, start_ksmd} from '../kernel/mm/ksm.ts';
import {needsContents, PageContents} from './contents.ts';
import {inferContents, type KsmContents} from './ksm_contents.ts';
import {inferPace, type KsmPace} from './ksm_pace.ts';
import type {CompiledTrace} from './tracks.ts';

/** Kernel threads of one trace, and what they work on. */
export interface Background {
  /** Null where nothing of KSM was recorded. */
  readonly ksm: {readonly pace: KsmPace; readonly inferred: KsmContents} | null;
  /** What pages hold; null in a replay that does not need to know. */
  contents(kernel: Kernel): PageContents | null;
  /** Starts the threads, before anything else runs. */
  start(kernel: Kernel): void;
}

const known = new WeakMap<CompiledTrace, Background>();

/** The background of a trace; made once, used by every replay of it. */
export function backgroundOf(compiled: CompiledTrace): Background {
  let background = known.get(compiled);
  if (background === undefined) {
    background = makeBackground(compiled);
    known.set(compiled, background);
  }
  return background;
}

function makeBackground(compiled: CompiledTrace): Background {
  const {events, strings} = compiled.trace;
  const needed = needsContents(events, strings);
  const inferred = needed ? inferContents(compiled) : null;
  const pace = inferred === null ? null : inferPace(inferred.recording);
  const ksm = pace === null || inferred === null ? null : {pace, inferred};
  return {
    ksm,
    contents: (kernel) => (needed ? new PageContents(kernel, ksm?.inferred.written) : null),
    start: (kernel) => {
      if (ksm !== null) startKsmd(kernel, ksm.pace);
    },
  };
}

function startKsmd(kernel: Kernel, pace: KsmPace): void {
  const {ksm} = kernel.mm;
  if (ksm === null) return;
  const {pagesToScan, sleepMs, useZeroPages, maxPageSharing} = pace;
  Object.assign(ksm.settings, {pagesToScan, sleepMs, useZeroPages, maxPageSharing});
  start_ksmd(ksm, KSMD_TID);
}
