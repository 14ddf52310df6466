// What a recording says of KSM, put together: which pages tasks wrote and when, which of them were mergeable, and what ksmd
// merged in each of its full scans.
//
// A *version* is what a page holds between two recorded write faults on it (a write without a fault leaves no trace). A merge names an mm, an
// rmap_item and a KSM page, but no address; ksm_contents.ts finds the version that it was.

import {argBigInt, argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {CLONE_VM} from '../kernel/clone_flags.ts';
import {X86_PF_PROT, X86_PF_WRITE} from '../kernel/mm/vm_fault.ts';
import {vpnArg} from './bind/binding.ts';
import {PageRanges} from './page_ranges.ts';
import {type CompiledTrace, timeOrder} from './tracks.ts';

const PAGE_BYTES = 4096;
const MADV_DONTNEED = 4;
const MADV_MERGEABLE = 12;
const MADV_UNMERGEABLE = 13;
const MAX_ERRNO = 4095;

/** What a page of an address space holds from one write fault to the next. */
export interface Version {
  readonly vpn: number;
  /** Event of the write access that made it, and its time. */
  readonly event: number;
  readonly madeNs: number;
  /** From when on it lay in mergeable memory, Infinity before that; when it was gone. */
  mergeableNs: number;
  goneNs: number;
  /** The write that ended it found the page write-protected. */
  brokenUp: boolean;
  /** Shared with a forked process at some time, which write-protects it, too. */
  forked: boolean;
  /** Class of its content, once known. */
  content: number | null;
}

/** Versions of one address space, oldest first, and the ones that there are now. */
export class Space {
  readonly versions: Version[] = [];
  readonly current = new Map<number, Version>();
  readonly mergeable = new PageRanges();
  /** When the recorded kernel put it on ksmd's list. */
  enteredNs = Number.POSITIVE_INFINITY;
}

/** One merge that ksmd did, or tried. */
export interface Merge {
  /** Since the merge before, or the start of the scan; NaN when ksmd did not run all the time. */
  readonly waitNs: number;
  /** Space and rmap_item of the recorded kernel, as one name. */
  readonly item: string;
  readonly content: number;
  /** The page became a KSM page itself; the next merge is that of the page it had met in the unstable tree. */
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
  /** Merges of address spaces that the recording does not show from the moment when they became mergeable. */
  readonly unknown: number;
  /** Merges, new KSM pages, zero pages: of all. */
  readonly merged: number;
  readonly nodes: number;
  readonly zeros: number;
  readonly failed: number;
  /** Most pages that one KSM page stood for. */
  readonly mostSharing: number;
}

/** Reads what ksmd did; `newContent` gives a content that no page has yet. Cost: one pass over the events. */
export function readKsm(compiled: CompiledTrace, newContent: () => number): KsmRecording {
  return new Reader(compiled, newContent).read();
}

class Reader {
  private readonly scans: Scan[] = [];
  private readonly spaces: (Space | undefined)[];
  private readonly leaders = new Map<number, Space>();
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
    this.spaces = new Array(compiled.tracks.length).fill(undefined);
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
      if (opOf[i] >= 0) this.operation(opOf[i], i);
      else this.answer(i);
    }
    return {scans: this.scans, unknown: this.unknown, ...this.counts};
  }

  private spaceOf(track: number): Space {
    const known = this.spaces[track];
    if (known !== undefined) return known;
    const {tgid} = this.compiled.tracks[track];
    const space = this.leaders.get(tgid) ?? new Space();
    this.leaders.set(tgid, space);
    this.spaces[track] = space;
    return space;
  }

  private operation(op: number, i: number): void {
    const {events} = this.compiled.trace;
    const track = this.compiled.opTrack[op];
    const space = this.spaceOf(track);
    const now = events.timeNs[i];
    this.lastOp.set(events.tid[i], op);
    switch (events.kind[i]) {
      case KIND.access:
        if ((argNumber(events, i, 1) & X86_PF_WRITE) !== 0) this.wrote(space, i, now);
        break;
      case KIND.fork:
        this.forked(space, this.compiled.opChild[op], i, now);
        break;
      case KIND.exec:
        this.setSpace(track, new Space());
        break;
      case KIND.ksm_enter:
        this.entered(space, i);
        break;
      case KIND.madvise:
        this.advised(space, i, now);
        break;
      case KIND.munmap:
        this.unmapped(space, vpnArg(events, i, 0), pagesArg(this.compiled, i, 1), now);
        break;
      case KIND.mmap:
        if (!failed(this.compiled, i, 6))
          this.unmapped(space, vpnArg(events, i, 6), pagesArg(this.compiled, i, 1), now);
        break;
      case KIND.mremap:
        if (!failed(this.compiled, i, 5)) this.moved(space, i, now);
        break;
      default:
    }
  }

  private setSpace(track: number, space: Space): void {
    this.spaces[track] = space;
    this.leaders.set(this.compiled.tracks[track].tgid, space);
  }

  private wrote(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const vpn = vpnArg(events, i, 0);
    const before = space.current.get(vpn);
    if (before !== undefined) {
      before.goneNs = now;
      before.brokenUp = (argNumber(events, i, 1) & X86_PF_PROT) !== 0;
    }
    this.add(space, vpn, i, now);
  }

  private add(space: Space, vpn: number, event: number, now: number): Version {
    const version: Version = {
      vpn,
      event,
      madeNs: now,
      mergeableNs: space.mergeable.has(vpn) ? now : Number.POSITIVE_INFINITY,
      goneNs: Number.POSITIVE_INFINITY,
      brokenUp: false,
      forked: false,
      content: null,
    };
    space.versions.push(version);
    space.current.set(vpn, version);
    return version;
  }

  private forked(parent: Space, child: number, i: number, now: number): void {
    if (child < 0) return;
    if ((argNumber(this.compiled.trace.events, i, 1) & CLONE_VM) !== 0) {
      this.setSpace(child, parent);
      return;
    }
    const copy = new Space();
    copy.mergeable.copy(parent.mergeable);
    for (const version of parent.current.values()) {
      version.forked = true;
      this.add(copy, version.vpn, version.event, now).forked = true;
    }
    this.setSpace(child, copy);
  }

  private advised(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const advice = argNumber(events, i, 2);
    const start = vpnArg(events, i, 0);
    const end = start + pagesArg(this.compiled, i, 1);
    if (advice === MADV_DONTNEED) this.dropPages(space, start, end, now);
    if (advice !== MADV_MERGEABLE && advice !== MADV_UNMERGEABLE) return;
    const on = advice === MADV_MERGEABLE;
    if (on) space.mergeable.add(start, end);
    else space.mergeable.remove(start, end);
    const inside = [...space.current.values()].filter(({vpn}) => vpn >= start && vpn < end);
    for (const version of inside) {
      if (on) version.mergeableNs = Math.min(version.mergeableNs, now);
      else {
        version.goneNs = now;
        this.add(space, version.vpn, version.event, now).forked = version.forked;
      }
    }
  }

  private unmapped(space: Space, start: number, pages: number, now: number): void {
    space.mergeable.remove(start, start + pages);
    this.dropPages(space, start, start + pages, now);
  }

  private dropPages(space: Space, start: number, end: number, now: number): void {
    for (const [vpn, version] of space.current) {
      if (vpn < start || vpn >= end) continue;
      version.goneNs = now;
      space.current.delete(vpn);
    }
  }

  private moved(space: Space, i: number, now: number): void {
    const {events} = this.compiled.trace;
    const from = vpnArg(events, i, 0);
    const to = vpnArg(events, i, 5);
    if (from === to) return;
    const pages = Math.min(pagesArg(this.compiled, i, 1), pagesArg(this.compiled, i, 2));
    const mergeable = space.mergeable.has(from);
    const moving = [...space.current.values()].filter(({vpn}) => vpn >= from && vpn < from + pages);
    this.unmapped(space, from, pages, now);
    this.unmapped(space, to, pages, now);
    if (mergeable) space.mergeable.add(to, to + pages);
    for (const {vpn, event} of moving) this.add(space, vpn - from + to, event, now);
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
      default:
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
    this.entered(this.spaceOf(child >= 0 ? child : compiled.opTrack[op]), i);
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

function pagesArg({trace}: CompiledTrace, i: number, k: number): number {
  return Math.ceil(argNumber(trace.events, i, k) / PAGE_BYTES);
}

/** Argument `k` is a negative errno. */
function failed({trace}: CompiledTrace, i: number, k: number): boolean {
  const at = trace.events.argStart[i] + k;
  return trace.events.argHi[at] === 0xffff_ffff && trace.events.argLo[at] >= 2 ** 32 - MAX_ERRNO;
}
