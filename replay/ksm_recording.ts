// What a recording says of KSM, put together: what ksmd merged in each of its full scans, beside
// the pages that tasks wrote (ksm_versions.ts). A merge names an mm, an rmap_item and a KSM page,
// but no address; ksm_contents.ts finds the version of a page that it was.

import {argBigInt, argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {MM_ANONPAGES} from '../kernel/mm/rss.ts';
import {type Space, Spaces, type Version} from './ksm_versions.ts';
import {type CompiledTrace, timeOrder} from './tracks.ts';

const HUGE_BYTES = 2 ** 21;

/** One merge that ksmd did, or tried. */
export interface Merge {
  /** Since the merge before, or the start of the scan; NaN when ksmd did not run all the time. */
  readonly waitNs: number;
  /** Space and rmap_item of the recorded kernel, as one name. */
  readonly item: string;
  readonly content: number;
  /**
   * The page became a KSM page itself; the next merge is that of the page it had met in the
   * unstable tree.
   */
  readonly first: boolean;
  /** It is that next one. */
  readonly met: boolean;
  readonly good: boolean;
}

/** One full scan of ksmd. */
export interface Scan {
  readonly startNs: number;
  endNs: number;
  /** Merges by space, in order. */
  readonly merges: Map<Space, Merge[]>;
  /** rmap_items at the end, -1 when that was not recorded. */
  items: number;
  /** How often ksmd went to sleep in it. */
  sleeps: number;
}

/** What readKsm found. */
export interface KsmRecording {
  readonly scans: readonly Scan[];
  /**
   * Merges of address spaces that the recording does not show from the moment when they became
   * mergeable.
   */
  readonly unknown: number;
  /** Versions of pages that came in many at once, as with a huge page. */
  readonly populated: readonly Version[];
  /** Merges, new KSM pages, zero pages: of all. */
  readonly merged: number;
  readonly nodes: number;
  readonly zeros: number;
  readonly failed: number;
  /** Most pages that one KSM page stood for. */
  readonly mostSharing: number;
}

/**
 * Reads what ksmd did; `newContent` gives a content that no page has yet. Cost: one pass over the
 * events.
 */
export function readKsm(compiled: CompiledTrace, newContent: () => number): KsmRecording {
  return new Reader(compiled, newContent).read();
}

class Reader {
  private readonly scans: Scan[] = [];
  private readonly spaces: Spaces;
  /** Bytes of anonymous memory by the recorder's name of an mm. */
  private readonly anonBytes = new Map<string, number>();
  private readonly byPointer = new Map<string, Space>();
  /** Content and number of pages of each KSM page, by its frame. */
  private readonly nodeOf = new Map<number, {content: number; pages: number}>();
  private readonly lastOp = new Map<number, number>();
  private ksmd = -1;
  private expectMet = -1;
  private lastMergeNs = Number.NaN;
  private unknown = 0;
  private counts = {merged: 0, nodes: 0, zeros: 0, failed: 0, mostSharing: 0};

  constructor(
    private readonly compiled: CompiledTrace,
    private readonly newContent: () => number,
  ) {
    this.spaces = new Spaces(compiled);
  }

  read(): KsmRecording {
    const {events} = this.compiled.trace;
    const order = timeOrder(events);
    const opOf = new Int32Array(events.count).fill(-1);
    this.compiled.opEvent.subarray(0, this.compiled.opCount).forEach((i, op) => {
      opOf[i] = op;
    });
    for (let n = 0; n < events.count; n++) {
      const i = order === null ? n : order[n];
      if (opOf[i] < 0) {
        this.answer(i);
        continue;
      }
      this.spaces.operation(opOf[i], i);
      this.lastOp.set(events.tid[i], opOf[i]);
      const track = this.compiled.opTrack[opOf[i]];
      if (events.kind[i] === KIND.ksm_enter) {
        const space = this.spaces.spaceOf(track);
        space.enterEvent = i;
        this.entered(space, i);
      }
    }
    this.addUnseen();
    const {scans, unknown, counts} = this;
    return {scans, unknown, populated: this.spaces.populatedVersions, ...counts};
  }

  // --- answers

  private answer(i: number): void {
    const {events} = this.compiled.trace;
    switch (events.kind[i]) {
      case KIND.ksm_entered:
        this.enteredInCall(i);
        break;
      case KIND.ksm_exited:
        this.byPointer.delete(String(argBigInt(events, i, 0)));
        break;
      case KIND.ksm_scan:
        this.scan(i);
        break;
      case KIND.ksm_merge_with:
        this.merge(i, argNumber(events, i, 0) !== 0);
        break;
      case KIND.ksm_merge_one:
        this.mergeZero(i);
        break;
      case KIND.ksm_remove_page:
        this.nodeOf.delete(argNumber(events, i, 0));
        break;
      case KIND.sched_switch:
        this.switched(i);
        break;
      case KIND.rss_stat:
        this.counted(i);
        break;
      default:
    }
  }

  /** A recording of KSM alone shows no pages; but each rmap_item is one. */
  private addUnseen(): void {
    const items = new Map<Space, Set<string>>();
    for (const {merges} of this.scans) {
      for (const [space, list] of merges) {
        if (space.versions.length > 0 || space.enterEvent < 0) continue;
        const known = items.get(space) ?? new Set<string>();
        items.set(space, known);
        for (const {item} of list) known.add(item);
      }
    }
    for (const [space, known] of items) this.spaces.unseen(space, known.size);
  }

  /** A fault that brought in 2 MB at once. */
  private counted(i: number): void {
    const {compiled} = this;
    const {events} = compiled.trace;
    if (argNumber(events, i, 2) !== MM_ANONPAGES) return;
    const mm = String(argBigInt(events, i, 0));
    const bytes = argNumber(events, i, 3);
    const more = bytes - (this.anonBytes.get(mm) ?? bytes);
    this.anonBytes.set(mm, bytes);
    const op = this.lastOp.get(events.tid[i]);
    if (more === HUGE_BYTES && op !== undefined) {
      this.spaces.hugeFault(op, compiled.opEvent[op], events.timeNs[i]);
    }
  }

  /** The madvise (or the fork, then it is the child) that task is in. */
  private enteredInCall(i: number): void {
    const {compiled} = this;
    const {events} = compiled.trace;
    const op = this.lastOp.get(events.tid[i]);
    if (op === undefined) return;
    const kind = events.kind[compiled.opEvent[op]];
    const child = kind === KIND.fork ? compiled.opChild[op] : -1;
    this.entered(this.spaces.spaceOf(child >= 0 ? child : compiled.opTrack[op]), i);
  }

  private entered(space: Space, i: number): void {
    const {events} = this.compiled.trace;
    space.enteredNs = events.timeNs[i];
    this.byPointer.set(String(argBigInt(events, i, 0)), space);
  }

  private scan(i: number): void {
    const {events} = this.compiled.trace;
    this.ksmd = events.tid[i];
    if (argNumber(events, i, 0) !== 0) {
      this.openScan(events.timeNs[i]);
      return;
    }
    const scan = this.scans.at(-1) ?? this.openScan(events.timeNs[0]);
    scan.endNs = events.timeNs[i];
    scan.items = argNumber(events, i, 2);
  }

  private openScan(startNs: number): Scan {
    this.lastMergeNs = startNs;
    const endNs = Number.POSITIVE_INFINITY;
    const scan: Scan = {startNs, endNs, merges: new Map(), items: -1, sleeps: 0};
    this.scans.push(scan);
    return scan;
  }

  private merge(i: number, hasNode: boolean): void {
    const {events} = this.compiled.trace;
    const frame = argNumber(events, i, 1);
    const good = argNumber(events, i, 4) === 0;
    const met = hasNode && this.expectMet === frame;
    this.expectMet = !hasNode && good ? frame : -1;
    let node = this.nodeOf.get(frame);
    if (!hasNode || node === undefined) {
      node = {content: this.newContent(), pages: 0};
      if (good) this.nodeOf.set(frame, node);
    }
    if (!good) this.counts.failed++;
    else {
      this.counts.merged++;
      if (!hasNode) this.counts.nodes++;
      this.counts.mostSharing = Math.max(this.counts.mostSharing, ++node.pages);
    }
    this.addMerge(i, 2, {content: node.content, first: !hasNode, met, good});
  }

  /** The page of zeros instead of a KSM page. */
  private mergeZero(i: number): void {
    const good = argNumber(this.compiled.trace.events, i, 3) === 0;
    this.expectMet = -1;
    if (good) this.counts.zeros++;
    else this.counts.failed++;
    this.addMerge(i, 1, {content: 0, first: false, met: false, good});
  }

  private addMerge(i: number, itemArg: number, merge: Omit<Merge, 'waitNs' | 'item'>): void {
    const {events} = this.compiled.trace;
    const pointer = String(argBigInt(events, i, itemArg + 1));
    const space = this.byPointer.get(pointer);
    if (space === undefined) {
      this.unknown++;
      return;
    }
    const scan = this.scans.at(-1) ?? this.openScan(events.timeNs[0]);
    const item = `${pointer} ${argBigInt(events, i, itemArg)}`;
    const list = scan.merges.get(space);
    const full = {...merge, waitNs: events.timeNs[i] - this.lastMergeNs, item};
    this.lastMergeNs = events.timeNs[i];
    if (list === undefined) scan.merges.set(space, [full]);
    else list.push(full);
  }

  private switched(i: number): void {
    const {events} = this.compiled.trace;
    const ASLEEP = 1;
    if (argNumber(events, i, 0) !== this.ksmd) return;
    this.lastMergeNs = Number.NaN;
    if (argNumber(events, i, 1) !== ASLEEP) return;
    const scan = this.scans.at(-1);
    if (scan !== undefined && scan.endNs === Number.POSITIVE_INFINITY) scan.sleeps++;
  }
}
