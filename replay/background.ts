// What the kernel's own threads do in a replay. A recording shows ksmd and khugepaged at work, but
// nobody recorded who set them up, and the contents that ksmd compares: both are inferred once for
// each trace. Generated traces set up and state everything themselves.

import {KIND} from '../formats/kinds.ts';
import type {Kernel} from '../kernel/kernel.ts';
import {KHUGEPAGED_TID} from '../kernel/mm/huge_memory_sysfs.ts';
import {start_khugepaged} from '../kernel/mm/khugepaged.ts';
import {KSMD_TID, start_ksmd} from '../kernel/mm/ksm.ts';
import {nsToTicks} from '../machine/time.ts';
import {needsContents, PageContents, WrittenPages} from './contents.ts';
import {inferContents, type KsmContents} from './ksm_contents.ts';
import {inferPace, type KsmPace} from './ksm_pace.ts';
import {type CompiledTrace, timeOrder} from './tracks.ts';

/** Kernel threads of one trace, and what they work on. */
export interface Background {
  /**
   * When khugepaged was at work, ns after the first event; it has no pace of its own in a short
   * recording.
   */
  readonly khugepagedNs: readonly number[];
  /** Null where nothing of KSM was recorded. */
  readonly ksm: {readonly pace: KsmPace; readonly inferred: KsmContents} | null;
  /** What pages hold; null in a replay that does not need to know. */
  contents(kernel: Kernel): PageContents | null;
  /**
   * Starts the threads; the time is that of the trace's first event, recorded times are divided by
   * `scale`.
   */
  start(kernel: Kernel, scale: number): void;
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
  const khugepagedNs = khugepagedTimes(compiled);
  const ksm = pace === null || inferred === null ? null : {pace, inferred};
  const written = inferred === null ? null : new WrittenPages(inferred.written, events.count);
  return {
    ksm,
    khugepagedNs,
    contents: (kernel) => (needed ? new PageContents(kernel, written) : null),
    start: (kernel, scale) => {
      if (ksm !== null) startKsmd(kernel, ksm.pace);
      if (khugepagedNs.length > 0) startKhugepaged(kernel, khugepagedNs, scale);
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

/** Records of one scan follow each other at once; scans are seconds apart. */
const SCAN_GAP_NS = 50e6;

/**
 * First event of each scan of the recorded khugepaged. MADV_COLLAPSE writes the same records, as
 * another task.
 */
function khugepagedTimes({trace}: CompiledTrace): number[] {
  const {events, tasks} = trace;
  const daemon = tasks.find(({comm}) => comm === 'khugepaged');
  if (daemon === undefined) return [];
  const times: number[] = [];
  const order = timeOrder(events);
  let last = Number.NEGATIVE_INFINITY;
  const first = events.timeNs[order === null ? 0 : order[0]];
  for (let n = 0; n < events.count; n++) {
    const i = order === null ? n : order[n];
    if (events.kind[i] !== KIND.khugepaged_scan || events.tid[i] !== daemon.tid) continue;
    const now = events.timeNs[i];
    if (now - last > SCAN_GAP_NS) times.push(now - first);
    last = now;
  }
  return times;
}

function startKhugepaged(kernel: Kernel, timesNs: readonly number[], scale: number): void {
  const {huge} = kernel.mm;
  if (huge === null) return;
  const {now} = kernel.machine.engine;
  const ticks = timesNs.map((ns) => now + nsToTicks(ns / scale));
  start_khugepaged(huge, KHUGEPAGED_TID, ticks);
}
